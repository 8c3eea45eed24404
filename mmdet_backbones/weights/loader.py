"""Load a checkpoint into a backbone and refuse one that does not cover it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from .dialect import OWN, Dialect
from .reader import Checkpoint, read_checkpoint
from .report import LoadReport, PretrainedWeightsError, StageCount

if TYPE_CHECKING:
    from ..backbones.contract import Backbone

_ARGUMENTS = ('checkpoint', 'prefix', 'min_coverage', 'map_location')
_COUNTER = 'num_batches_tracked'


def split_init_cfg(
    init_cfg: dict | Sequence[dict] | None,
) -> tuple[list[dict[str, Any]], list[dict]]:
    """Separate the arguments of :func:`load_pretrained` from other initialisers.

    Args:
        init_cfg: As mmengine's ``BaseModule`` takes it.

    Returns:
        The arguments of each ``Pretrained`` entry, and all other entries.

    Raises:
        TypeError: If a ``Pretrained`` entry has no or unknown arguments.
    """
    entries = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    pretrained, others = [], []
    for entry in entries:
        if getattr(entry['type'], '__name__', entry['type']) not in (
            'Pretrained',
            'PretrainedInit',
        ):
            others.append(entry)
            continue
        arguments = {key: value for key, value in entry.items() if key != 'type'}
        unknown = [key for key in arguments if key not in _ARGUMENTS]
        if unknown or 'checkpoint' not in arguments:
            raise TypeError(
                "init_cfg=dict(type='Pretrained') takes checkpoint, and optionally "
                f'{", ".join(_ARGUMENTS[1:])}; got {", ".join(arguments) or "nothing"}'
            )
        pretrained.append(arguments)
    return pretrained, others


def load_pretrained(
    backbone: Backbone,
    checkpoint: str,
    prefix: str | None = None,
    min_coverage: float = 0.95,
    map_location: str = 'cpu',
) -> LoadReport:
    """Load pretrained weights and log what was loaded.

    Args:
        backbone: Takes the weights in place.
        checkpoint: Source, see :func:`~mmdet_backbones.weights.read_checkpoint`.
        prefix: Only keys that start with it are used, without it. Left out, a
            ``backbone.`` is found by itself.
        min_coverage: Smallest accepted share of the backbone's parameters, 0 to 1.
        map_location: Device the file is read to.

    Returns:
        What was loaded, missing, unexpected and of another shape.

    Raises:
        CheckpointError: If the file cannot be read.
        PretrainedWeightsError: If the coverage is below ``min_coverage``; the
            backbone is left as it was.
        ValueError: If ``min_coverage`` is not in [0, 1].
    """
    if not 0 <= min_coverage <= 1:
        raise ValueError(f'min_coverage must be from 0 to 1, got {min_coverage}')
    source = read_checkpoint(checkpoint, map_location)
    state_dict = _under_prefix(source, prefix)
    expected = backbone.state_dict()
    dialect, renamed, heads = _recognise(state_dict, expected, backbone.dialects)
    fitting = {
        key: renamed[key]
        for key, value in expected.items()
        if key in renamed and renamed[key].shape == value.shape
    }
    report = LoadReport(
        source=source.source,
        sha256=source.sha256,
        dialect=dialect.name,
        stages=_count(expected, fitting),
        missing=tuple(k for k in expected if k not in renamed and _matters(k)),
        unexpected=tuple(k for k in renamed if k not in expected and _matters(k)),
        mismatched=tuple(
            (key, tuple(value.shape), tuple(renamed[key].shape))
            for key, value in expected.items()
            if key in renamed and key not in fitting
        ),
        heads=heads,
    )
    if report.coverage < min_coverage:
        raise PretrainedWeightsError(_refusal(backbone, report, source, min_coverage))
    with torch.no_grad():
        for key, value in fitting.items():
            expected[key].copy_(value)
    print_log(str(report), logger='current', level=logging.INFO)
    return report


def _under_prefix(source: Checkpoint, prefix: str | None) -> dict[str, Tensor]:
    keys = source.state_dict
    if prefix is None:
        inside = _strip(keys, 'backbone.')
        return inside or dict(keys)
    inside = _strip(keys, prefix if prefix.endswith('.') else f'{prefix}.')
    if not inside:
        tops = sorted({key.split('.')[0] for key in keys})
        raise PretrainedWeightsError(
            f"No key of {source.source} starts with prefix='{prefix}'. Its keys start "
            f'with {", ".join(tops[:10])}{", ..." if len(tops) > 10 else ""}: write '
            'one of these as prefix, or leave prefix out'
        )
    return inside


def _strip(keys: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in keys.items() if k.startswith(prefix)}


def _recognise(
    state_dict: dict[str, Tensor],
    expected: Collection[str],
    dialects: Sequence[Dialect],
) -> tuple[Dialect, dict[str, Tensor], int]:
    """Choose the dialect under which most tensors find their place."""
    best: tuple[int, Dialect, dict[str, Tensor], int] | None = None
    for dialect in (OWN, *(d for d in dialects if d.fits(state_dict))):
        renamed, heads = {}, 0
        for key, value in state_dict.items():
            target = dialect.translate(key, expected)
            if target not in expected and dialect.is_head(key):
                heads += 1
            else:
                renamed[target] = value
        found = sum(key in expected for key in renamed)
        if best is None or found > best[0]:
            best = (found, dialect, renamed, heads)
    assert best is not None
    return best[1:]


def _matters(key: str) -> bool:
    # A counter that older files lack; it has no influence with a fixed momentum.
    return not key.endswith(_COUNTER)


def _count(
    expected: dict[str, Tensor], fitting: dict[str, Tensor]
) -> dict[str, StageCount]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for key, value in expected.items():
        if not _matters(key):
            continue
        count = counts[_stage_name(key)]
        count[1] += 1
        count[3] += value.numel()
        if key in fitting:
            count[0] += 1
            count[2] += value.numel()
    return {name: StageCount(*count) for name, count in counts.items()}


def _stage_name(key: str) -> str:
    # `timm_model.blocks.3.0.conv.weight` belongs to `blocks.3`, `layer1.0.conv1.weight`
    # to `layer1`: wrappers say nothing, a number after a plural name is the stage.
    parts = key.removeprefix('timm_model.').split('.')[:-1]
    if len(parts) > 1 and parts[1].isdigit() and not parts[0][-1].isdigit():
        return '.'.join(parts[:2])
    return parts[0] if parts else key


def _refusal(
    backbone: Backbone, report: LoadReport, source: Checkpoint, min_coverage: float
) -> str:
    name = type(backbone).__name__
    text = (
        f'{report.coverage:.1%} of the parameters of {name} would be loaded, at least '
        f'{min_coverage:.0%} are needed.\n{report}\n'
    )
    loaded = any(stage.tensors for stage in report.stages.values())
    if report.mismatched and not loaded:
        text += 'The names fit and the shapes do not: another width or depth. '
    elif not loaded:
        keys = ', '.join(list(source.state_dict)[:3])
        text += f'No name fits; the file has {keys}, ...: a prefix or another net. '
    return text + (
        'Write the checkpoint of this net, or the prefix under which it stands; to '
        'accept it as it is write '
        f"init_cfg=dict(type='Pretrained', checkpoint='{source.source}', "
        f'min_coverage={int(report.coverage * 100) / 100})'
    )
