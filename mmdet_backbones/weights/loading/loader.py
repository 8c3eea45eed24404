"""Load a checkpoint into a backbone and refuse one that does not cover it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from ...errors import PretrainedWeightsError
from ..names.dialect import PREFIXES, is_computed
from ..names.libraries import without_root
from ..reading.reader import Checkpoint, read_checkpoint
from ..reading.unwrap import check_finite
from .adapt import adapt
from .diagnosis import deeper_refusal, frozen_refusal, refusal
from .matching import Match, match
from .report import Adapted, LoadReport, Mismatch, StageCount

if TYPE_CHECKING:
    from .target import Target


def load_pretrained(
    backbone: Target,
    checkpoint: str,
    prefix: str | None = None,
    min_coverage: float = 0.95,
    map_location: str = 'cpu',
    allow_random_frozen: bool = False,
) -> LoadReport:
    """Load pretrained weights and log what was loaded.

    Args:
        backbone: Takes the weights in place.
        checkpoint: Source, see :func:`~mmdet_backbones.weights.read_checkpoint`.
        prefix: Only keys that start with it are used, without it. Left out, the usual
            ones (``backbone.`` of a detector among them) are found by themselves.
        min_coverage: Smallest accepted share of the backbone's parameters, 0 to 1.
        map_location: Device the file is read to.
        allow_random_frozen: Accept that frozen stages, or statistics that
            ``norm_eval`` keeps fixed, are not in the file.

    Returns:
        What was loaded, missing, unexpected and of another shape.

    Raises:
        CheckpointError: If the file cannot be read.
        PretrainedWeightsError: If the coverage is below ``min_coverage``, or something
            frozen would keep random values; the backbone is left as it was.
        ValueError: If ``min_coverage`` is not in [0, 1].
    """
    if not 0 <= min_coverage <= 1:
        raise ValueError(f'min_coverage must be from 0 to 1, got {min_coverage}')
    source = read_checkpoint(checkpoint, map_location, finite=False)
    return load_checkpoint(backbone, source, prefix, min_coverage, allow_random_frozen)


def load_checkpoint(
    backbone: Target,
    source: Checkpoint,
    prefix: str | None = None,
    min_coverage: float = 0.95,
    allow_random_frozen: bool = False,
) -> LoadReport:
    """Load weights that were read already; see :func:`load_pretrained`."""
    report, found, fitting = examine_checkpoint(
        backbone, source, prefix, min_coverage, allow_random_frozen
    )
    used = [name for key in fitting for name in found.found[key].names]
    check_finite({name: source.state_dict[name] for name in used}, source.source)
    _copy(backbone.state_dict(), found, fitting)
    # Known by now: the file was hashed meanwhile.
    report = replace(report, sha256=source.sha256)
    if is_main_process():
        print_log(str(report), logger='current', level=logging.INFO)
    return report


def examine_checkpoint(
    backbone: Target,
    source: Checkpoint,
    prefix: str | None = None,
    min_coverage: float = 0.95,
    allow_random_frozen: bool = False,
) -> tuple[LoadReport, Match, dict[str, Tensor | None]]:
    """Find out what loading would do; nothing is loaded.

    Args:
        backbone: That the weights are for; it may be on the meta device.
        source: The weights; their tensors may be on the meta device.
        prefix: As :func:`load_pretrained` takes it.
        min_coverage: The same.
        allow_random_frozen: The same.

    Returns:
        The report, without a sha256; what was found; and by key what fits, with the
        tensor that was made to fit or None for one that fits as it is.

    Raises:
        PretrainedWeightsError: As :func:`load_pretrained`.
    """
    expected = backbone.state_dict()
    found = match(
        source.state_dict, expected, backbone.dialects, _prefixes(source, prefix)
    )
    fitting, adapted, mismatched = _fit(backbone, expected, found)
    report = LoadReport(
        source=source.source,
        sha256='',
        dialect=found.dialect.name,
        prefix=found.prefix,
        stages=_count(expected, fitting),
        missing=tuple(
            k for k in expected if k not in found.found and not is_computed(k)
        ),
        unexpected=found.unexpected,
        mismatched=mismatched,
        adapted=adapted,
        heads=found.heads,
        outside=found.outside,
    )
    if report.coverage < min_coverage:
        raise PretrainedWeightsError(
            refusal(backbone, report, source.state_dict, min_coverage)
        )
    deeper = deeper_refusal(backbone, found, source.state_dict)
    if deeper:
        raise PretrainedWeightsError(deeper)
    random = frozen_refusal(backbone, report, fitting)
    if random and not allow_random_frozen:
        raise PretrainedWeightsError(random)
    return report, found, fitting


def _prefixes(source: Checkpoint, prefix: str | None) -> Sequence[str]:
    if prefix is None:
        return PREFIXES
    dotted = prefix if not prefix or prefix.endswith(('.', '_')) else f'{prefix}.'
    if any(key.startswith(dotted) for key in source.state_dict):
        return (dotted,)
    tops = sorted({key.split('.')[0] for key in source.state_dict})
    raise PretrainedWeightsError(
        f"No key of {source.source} starts with prefix='{prefix}'. Its keys start "
        f'with {", ".join(tops[:10])}{", ..." if len(tops) > 10 else ""}: write '
        'one of these as prefix, or leave prefix out'
    )


def _fit(
    backbone: Target, expected: Mapping[str, Tensor], found: Match
) -> tuple[dict[str, Tensor | None], tuple[Adapted, ...], tuple[Mismatch, ...]]:
    """Sort what was found into what fits, what was made to fit and what does not.

    Returns:
        Adapted tensors by key, None for those that fit as they are.
    """
    fitting: dict[str, Tensor | None] = {}
    adapted, mismatched = [], []
    for key, tensor in found.found.items():
        target = tuple(expected[key].shape)
        if tensor.shape == target:
            fitting[key] = None
            continue
        if is_computed(key):
            continue
        fitted = adapt(backbone, key, tensor.make(), target)
        if fitted is None:
            mismatched.append(Mismatch(key, target, tensor.shape))
        else:
            fitting[key] = fitted[0]
            adapted.append(Adapted(key, tensor.shape, target, fitted[1]))
    return fitting, tuple(adapted), tuple(mismatched)


def _copy(
    expected: Mapping[str, Tensor], found: Match, fitting: Mapping[str, Tensor | None]
) -> None:
    with torch.no_grad():
        for key, fitted in fitting.items():
            # What a net computes from its arguments is right for these arguments.
            if is_computed(key) and not key.endswith('num_batches_tracked'):
                continue
            value = found.found[key].make() if fitted is None else fitted
            expected[key].copy_(value)


def _count(
    expected: Mapping[str, Tensor], fitting: Mapping[str, Any]
) -> dict[str, StageCount]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for key, value in expected.items():
        if is_computed(key):
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
    parts = without_root(key).split('.')[:-1]
    if len(parts) > 1 and parts[1].isdigit() and not parts[0][-1].isdigit():
        return '.'.join(parts[:2])
    return parts[0] if parts else key
