"""Strides of the outputs of mmdet's necks, from their configs and their inputs.

Each function takes the config of a neck and the strides of the levels before it,
shallow to deep, and returns those of its outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Part = Mapping[str, Any]
Strides = tuple[float, ...]


def same(part: Part, strides: Strides) -> Strides:
    """Every map keeps its stride."""
    return strides


def deepest(part: Part, strides: Strides) -> Strides:
    """The deepest input alone."""
    return strides[-1:]


def pyramid(part: Part, strides: Strides) -> Strides:
    """Outputs of FPN and its kin: the used inputs, then every second pixel."""
    return _up_to(_used(part, strides, 0), part.get('num_outs'))


def pyramid_from_second(part: Part, strides: Strides) -> Strides:
    """As :func:`pyramid`, without the first input by default."""
    return _up_to(_used(part, strides, 1), part.get('num_outs'))


def _used(part: Part, strides: Strides, default_start: int) -> Strides:
    start, end = part.get('start_level', default_start), part.get('end_level', -1)
    return strides[start:] if end == -1 else strides[start : end + 1]


def _up_to(strides: Strides, count: int | None) -> Strides:
    while strides and count is not None and len(strides) < count:
        strides = (*strides, 2 * strides[-1])
    return strides


def extended(part: Part, strides: Strides) -> Strides:
    """All inputs, then every second pixel."""
    return _up_to(strides, part.get('num_outs'))


def from_finest(part: Part, strides: Strides) -> Strides:
    """HRFPN: all from the finest input, each half the one before."""
    finest = strides[0] * part.get('stride', 1)
    return _up_to((finest,), part.get('num_outs', 5))


def deconvolved(part: Part, strides: Strides) -> Strides:
    """CTResNetNeck: the deepest input, doubled by each layer."""
    return (strides[-1] / 2 ** len(part['num_deconv_filters']),)


def ssd_outputs(part: Part, strides: Strides) -> Strides:
    """SSD: the inputs, then as its extra layers stride."""
    for stride in part['level_strides']:
        strides = (*strides, strides[-1] * stride)
    return strides


def vit_outputs(part: Part, strides: Strides) -> Strides:
    """The simple feature pyramid: one input, at several scales."""
    scales = part.get('scale_factors', (4, 2, 1, 0.5))
    made = tuple(strides[-1] / scale for scale in scales)
    return _up_to(made, part.get('num_outs', 5))
