"""Which levels of a new backbone a detector gets, and through which neck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..detector_config.neck_rules import Strides, necks_of, rule_of
from ..detector_config.tree import plain
from ..errors import UserError
from ..levels import Level, describe_levels
from ..necks.simple_feature_pyramid import SCALES
from ..shapes.build import build_weightless
from .base import Base

Edits = dict[tuple[str | int, ...], Any]
_PYRAMID_CHANNELS = 256


@dataclass(frozen=True)
class LevelPlan:
    """How the levels of a backbone reach the heads.

    Attributes:
        strides: Of the levels that the backbone returns, shallow to deep.
        channels: Of the same levels.
        edits: What changes below ``model`` in necks and readers, by place.
        outputs: Strides of the maps that the heads get.
        neck_inputs: Strides of the maps that the base's own neck gets, or those that
            the heads get where the pyramid from one map stands in for it.
        notes: Sentences for whoever reads the new config.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    edits: Edits
    outputs: Strides
    neck_inputs: Strides
    notes: list[str] = field(default_factory=list)


def plan_levels(
    base: Base, name: str, offered: Sequence[Level], requested: Sequence[int] | None
) -> LevelPlan:
    """Choose levels and fill the neck.

    Args:
        base: The detector.
        name: Of the backbone, for messages.
        offered: All of its levels.
        requested: Strides that the user wants, or None for those of the base.

    Returns:
        The plan.

    Raises:
        UserError: A ``ValueError``, if the levels do not suffice; all are listed.
    """
    by_stride = {level.stride: level for level in offered}
    if requested is not None:
        _check_requested(base, name, offered, requested)
        return _direct(base, by_stride, tuple(requested))
    # What the base's own levels would be without those that its neck leaves out.
    wanted = base.strides[-1:] if base.rule.single else base.strides
    used = wanted[base.rule.first_used(base.reader) :]
    for strides in (wanted, used):
        if all(stride in by_stride for stride in strides):
            return _direct(base, by_stride, strides)
    if len(by_stride) == 1:
        return _through_pyramid(base, offered[-1], used)
    return _nearest(base, name, offered, used)


def _check_requested(
    base: Base, name: str, offered: Sequence[Level], requested: Sequence[int]
) -> None:
    there = {level.stride for level in offered}
    problems = []
    missing = [str(stride) for stride in requested if stride not in there]
    if missing:
        problems.append(
            f'{name} has no level of stride {", ".join(missing)}: it has '
            f'{describe_levels(offered)}. Write some of --strides '
            f'{" ".join(str(stride) for stride in sorted(there))}'
        )
    if list(requested) != sorted(set(requested)):
        problems.append('--strides names each stride once, shallow to deep')
    count = base.rule.count(base.reader)
    start = base.rule.first_used(base.reader)
    if count is not None and len(requested) != count - start:
        problems.append(
            f'{_reader(base)} takes {count - start} levels, --strides names '
            f'{len(requested)}'
        )
    needed = base.strides[start:]
    if base.rule.fixed and tuple(requested) != needed:
        problems.append(
            f'the heads behind {_reader(base)} are made for the strides {needed}'
        )
    if problems:
        raise UserError('; '.join(problems))


def _direct(
    base: Base, by_stride: dict[int, Level], strides: tuple[int, ...]
) -> LevelPlan:
    """Levels of these strides straight into the part that reads them."""
    levels = [by_stride[stride] for stride in strides]
    channels = tuple(level.channels for level in levels)
    notes: list[str] = []
    if base.place == ('rpn_head',):
        edits, neck = _without_neck(base, channels[-1])
        if neck:
            notes.append(
                f'A 1x1 convolution brings the {channels[-1]} channels to the '
                f'{base.levels[-1].channels} that roi_head.shared_head is made for.'
            )
        return LevelPlan(strides, channels, edits, strides, strides, notes)
    settings = base.rule.settings(base.reader, channels)
    start = base.rule.first_used(base.reader)
    if start and strides != base.strides:
        settings['start_level'] = 0
    edits = {(*base.place, key): value for key, value in settings.items()}
    edits |= _behind(base, settings)
    outputs = _outputs(base, settings, strides)
    return LevelPlan(strides, channels, edits, outputs, strides, notes)


def _behind(base: Base, settings: dict[str, Any]) -> Edits:
    """Channels of the head where those of the neck's outputs follow its inputs."""
    head = base.model.get('bbox_head') or {}
    follows = 'out_channels' in settings and 'in_channels' in head
    if not follows:
        return {}
    return {('bbox_head', 'in_channels'): settings['out_channels']}


def _outputs(base: Base, settings: dict[str, Any], strides: Strides) -> Strides:
    if base.place[0] != 'neck':
        return strides
    found = base.rule.outputs({**base.reader, **settings}, tuple(strides))
    return _whole(_after_first(base, found))


def _after_first(base: Base, strides: Strides) -> Strides:
    for neck in necks_of(base.model)[1:]:
        strides = rule_of(neck).outputs(neck, strides)
    return strides


def _whole(strides: Strides) -> Strides:
    return tuple(int(s) if float(s).is_integer() else s for s in strides)


def _without_neck(base: Base, channels: int) -> tuple[Edits, bool]:
    """Fill the heads of Faster R-CNN C4 or DC5, or project for a shared head."""
    old = base.levels[-1].channels
    if channels == old:
        return {}, False
    roi_head = base.model.get('roi_head') or {}
    if roi_head.get('shared_head'):
        neck = dict(
            type='mmdet_backbones.SingleLevel', in_channels=[channels], out_channels=old
        )
        return {('neck',): neck}, True
    edits: Edits = {}
    for place, key in (
        (('rpn_head',), 'in_channels'),
        (('roi_head', 'bbox_roi_extractor'), 'out_channels'),
        (('roi_head', 'mask_roi_extractor'), 'out_channels'),
        (('roi_head', 'bbox_head'), 'in_channels'),
        (('roi_head', 'mask_head'), 'in_channels'),
    ):
        part: Any = base.model
        for step in place:
            part = (part or {}).get(step)
        if part and part.get(key) == old:
            edits[(*place, key)] = channels
    return edits, False


def _through_pyramid(base: Base, level: Level, used: tuple[int, ...]) -> LevelPlan:
    """The map of a plain ViT, made into maps of the strides that are wanted."""
    single = base.rule.count(base.reader) == 1 or base.place == ('rpn_head',)
    exact = single or len(used) == 1
    if exact and round(level.stride / used[-1]) == 1:
        return _direct(base, {level.stride: level}, (level.stride,))
    replaces = base.rule.pyramid and base.place[0] == 'neck'
    # As many maps as the neck would give, or as it takes.
    outputs = base.rule.outputs({**base.reader, 'start_level': 0}, used)
    count = len(outputs) if replaces else len(used)
    aims = outputs if replaces else used
    pyramid = _pyramid(base, level, aims, count, replaces)
    made: Strides = tuple(build_weightless(pyramid).out_strides)  # type: ignore[arg-type]
    note = (
        f'The one map of stride {level.stride} becomes maps of the strides '
        f'{", ".join(map(str, made))} in the simple feature pyramid of ViTDet '
        '(arXiv 2203.16527).'
    )
    strides, channels = (level.stride,), (level.channels,)
    if replaces:
        edits: Edits = {base.place: dict(_delete_=True, **pyramid)}
        heads = _whole(_after_first(base, made))
        return LevelPlan(strides, channels, edits, heads, made, [note])
    inner = [_PYRAMID_CHANNELS] * len(made)
    if base.place[0] != 'neck':
        raise UserError(
            f'{base.place[0]} reads the levels of the backbone without a neck, and '
            f'there is one level only, of stride {level.stride}'
        )
    settings = base.rule.settings(base.reader, inner)
    chain = [pyramid, *(plain(neck) for neck in necks_of(base.model))]
    chain[1] = {**chain[1], **settings}
    outputs = _outputs(base, settings, made)
    changes = {('neck',): chain, **_behind(base, settings)}
    return LevelPlan(strides, channels, changes, outputs, made, [note])


def _pyramid(
    base: Base, level: Level, aims: Strides, count: int, replaces: bool
) -> dict[str, Any]:
    exponents = [round(math.log2(level.stride / stride)) for stride in aims]
    scales = [s for s in SCALES if math.log2(s) in exponents] or [1]
    own = base.reader.get('out_channels')
    channels = own if replaces and isinstance(own, int) else _PYRAMID_CHANNELS
    return dict(
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=level.channels,
        out_channels=channels,
        num_outs=count,
        scale_factors=tuple(scales[:count]),
        in_stride=level.stride,
    )


def _nearest(
    base: Base, name: str, offered: Sequence[Level], used: tuple[int, ...]
) -> LevelPlan:
    """The levels that are there, for a part that does without some."""
    by_stride = {level.stride: level for level in offered}
    there = tuple(stride for stride in used if stride in by_stride)
    count = base.rule.count(base.reader)
    if count == 1 and not base.rule.fixed:
        there = (min(by_stride, key=lambda stride: abs(stride - used[-1])),)
    elif count is not None or base.rule.fixed or not there:
        raise UserError(
            f'{_reader(base)} wants levels of the strides {_listed(used)}, {name} has '
            f'{describe_levels(offered)}: write --strides with strides that it has, or '
            'take another backbone or detector'
        )
    plan = _direct(base, by_stride, there)
    plan.notes.append(
        f'{name} has no level of stride '
        f'{_listed(s for s in used if s not in by_stride)}: {_reader(base)} gets '
        f'{_listed(there)} instead of {_listed(used)}, and the heads get '
        f'{_listed(plan.outputs)}.'
    )
    return plan


def _listed(values: Any) -> str:
    return ', '.join(map(str, values))


def _reader(base: Base) -> str:
    return str(base.reader.get('type', base.place[0])).rpartition('.')[2]
