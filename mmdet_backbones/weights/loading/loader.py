"""Load a checkpoint into a backbone and refuse one that does not cover it."""

from __future__ import annotations

import logging
import math
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
from ..reading.reader import Checkpoint, open_checkpoint
from ..reading.values import check_values
from .adapt import adapt, is_table, regrid
from .diagnosis import refusal
from .init_cfg import Terms
from .matching import Found, Match, match
from .report import Adapted, LoadReport, Mismatch, StageCount

if TYPE_CHECKING:
    from .target import Target

_USUAL = Terms()


def load_pretrained(
    backbone: Target,
    checkpoint: str,
    prefix: str | None = None,
    min_coverage: float | None = None,
    map_location: str = 'cpu',
    allow_random_frozen: bool = False,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> LoadReport:
    """Load pretrained weights and log what was loaded.

    Args:
        backbone: Takes the weights in place.
        checkpoint: Source, see :func:`~mmdet_backbones.weights.read_checkpoint`.
        prefix: Only keys that start with it are used, without it. Left out, the usual
            ones (``backbone.`` of a detector among them) are found by themselves.
        min_coverage: Smallest accepted share of the backbone's parameters, 0 to 1.
            Left out, 0.95 of them and every tensor of every role are needed; with a
            number, some tensor of every role is.
        map_location: Device the file is read to.
        allow_random_frozen: Accept that frozen stages, or statistics that
            ``norm_eval`` keeps fixed, are not in the file.
        allow_missing: Names or roles (``'blocks.*.gamma'``) that the file may lack.
        allow_unexpected: The same of what the file has for the backbone's blocks and
            they do not take.

    Returns:
        What was loaded, missing, unexpected and of another shape.

    Raises:
        CheckpointError: If the file cannot be read, or has values that no net takes.
        PretrainedWeightsError: If a role of the backbone is not filled, the coverage
            is below ``min_coverage``, the file has more for a block than that takes,
            or something frozen would keep random values; the backbone is left as it
            was.
        TypeError: If a list of names is none.
        ValueError: If ``min_coverage`` is not in [0, 1].
    """
    terms = Terms(
        min_coverage,
        allow_missing,  # type: ignore[arg-type]
        allow_unexpected,  # type: ignore[arg-type]
        allow_random_frozen,
    )
    with open_checkpoint(checkpoint, map_location, finite=False) as source:
        return load_checkpoint(backbone, source, prefix, terms)


def load_checkpoint(
    backbone: Target,
    source: Checkpoint,
    prefix: str | None = None,
    terms: Terms = _USUAL,
) -> LoadReport:
    """Load weights that were read already; see :func:`load_pretrained`."""
    report, found, fitting = examine_checkpoint(backbone, source, prefix, terms)
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
    terms: Terms = _USUAL,
) -> tuple[LoadReport, Match, dict[str, Tensor | None]]:
    """Find out what loading would do; nothing is loaded.

    Whatever says something about weights asks here: a training, a check, a conversion.

    Args:
        backbone: That the weights are for; it may be on the meta device.
        source: The weights.
        prefix: As :func:`load_pretrained` takes it.
        terms: What may be missing or left over.

    Returns:
        The report, without a sha256; what was found; and by key what fits, with the
        tensor that was made to fit or None for one that fits as it is.

    Raises:
        CheckpointError: As :func:`load_pretrained`.
        PretrainedWeightsError: The same.
    """
    with backbone.as_in(source.state_dict):
        return _examined(backbone, source, prefix, terms)


def _examined(
    backbone: Target, source: Checkpoint, prefix: str | None, terms: Terms
) -> tuple[LoadReport, Match, dict[str, Tensor | None]]:
    expected = backbone.state_dict()
    found = match(
        source.state_dict, expected, backbone.dialects, _prefixes(source, prefix)
    )
    fitting, adapted, mismatched = _fit(backbone, expected, found, source)
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
    problem = refusal(backbone, report, found, fitting, source, prefix, terms)
    if problem:
        raise PretrainedWeightsError(problem)
    check_values(
        {
            name: (source.state_dict[name], expected[key].dtype)
            for key in fitting
            for name in found.found[key].names
        },
        source.source,
    )
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
    backbone: Target, expected: Mapping[str, Tensor], found: Match, source: Checkpoint
) -> tuple[dict[str, Tensor | None], tuple[Adapted, ...], tuple[Mismatch, ...]]:
    """Sort what was found into what fits, what was made to fit and what does not.

    Returns:
        Adapted tensors by key, None for those that fit as they are.
    """
    fitting: dict[str, Tensor | None] = {}
    adapted, mismatched = [], []
    for key, tensor in found.found.items():
        target = tuple(expected[key].shape)
        fits = tensor.shape == target
        if is_computed(key):
            fitted = None
        elif not fits:
            fitted = adapt(backbone, key, tensor.make(), target, source.image_size)
        elif is_table(key) and _as_saved(tensor, source):
            fitted = regrid(backbone, key, tensor.make(), source.image_size)
        else:
            fitted = None
        if fitted is not None:
            fitting[key] = fitted[0]
            adapted.append(Adapted(key, tensor.shape, target, fitted[1]))
        elif fits:
            fitting[key] = None
        elif not is_computed(key):
            mismatched.append(Mismatch(key, target, tensor.shape))
    return fitting, tuple(adapted), tuple(mismatched)


def _as_saved(tensor: Found, source: Checkpoint) -> bool:
    # Otherwise it was brought to the size of the net already.
    saved = sum(source.state_dict[name].numel() for name in tensor.names)
    return saved == math.prod(tensor.shape)


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
