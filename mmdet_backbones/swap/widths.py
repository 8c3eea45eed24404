"""Necks whose inner width follows the backbone's, kept at the width of the base."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..detector_config.detector import DetectorConfig
from ..detector_config.neck_rules import necks_of
from ..detector_config.tree import Part, plain, type_name
from .level_plan import LevelPlan

# Of the parameters of backbone and neck, that a wider neck may cost.
_MOST_COST = 1 / 3


def project_wide_levels(
    base: DetectorConfig, plan: LevelPlan, backbone: nn.Module
) -> LevelPlan:
    """Project the levels to the width of the base where the neck would grow with them.

    The necks of YOLOX and RTMDet are as wide as their levels: made for a narrow
    backbone, they weigh more than a ResNet behind one.

    Args:
        base: The detector.
        plan: With the levels straight into its neck.
        backbone: The new one.

    Returns:
        The plan, with 1x1 convolutions before the neck if it would cost more than a
        third of backbone and neck together otherwise.
    """
    place, part, rule = base.reader
    inner = rule.channels(part)
    if not rule.widens or not inner or (*place, 'in_channels') not in plan.edits:
        return plan
    width = inner[len(inner) // 2]
    count = len(plan.channels)
    kept = {**plain(part), 'in_channels': list(plan.channels)}
    mapper = dict(
        type='ChannelMapper',
        in_channels=list(plan.channels),
        kernel_size=1,
        out_channels=width,
        norm_cfg=plain(part.get('norm_cfg')),
        act_cfg=plain(part.get('act_cfg')),
        num_outs=count,
    )
    narrow = {**plain(part), 'in_channels': [width] * count}
    wide_size = _size(base, kept)
    size = _size(base, mapper) + _size(base, narrow)
    whole = sum(p.numel() for p in backbone.parameters()) + wide_size
    if wide_size - size <= whole * _MOST_COST:
        return plan
    others = [plain(neck) for neck in necks_of(base.model)[1:]]
    edits = {k: v for k, v in plan.edits.items() if k != (*place, 'in_channels')}
    edits[('neck',)] = [mapper, narrow, *others]
    note = (
        f'{type_name(part)} is as wide as its levels: with '
        f'{", ".join(map(str, plan.channels))} channels it would be '
        f'{wide_size / 1e6:.1f} of {whole / 1e6:.1f} M parameters. 1x1 convolutions '
        f'bring them to the {width} of the base, which makes it {size / 1e6:.1f} M; '
        '--keep-width leaves them out.'
    )
    return replace(plan, edits=edits, notes=[*plan.notes, note])


def _size(base: DetectorConfig, part: Part) -> int:
    return sum(p.numel() for p in base.build(part).parameters())
