"""Levels and parameters of a net, by one pass on the meta device."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..levels import PROBE_SIZE, Level, describe_levels, measure
from .build import forward_weightless
from .repeated import repeated_shapes


def probe_levels(
    backbone: nn.Module, size: tuple[int, int] = PROBE_SIZE, in_channels: int = 3
) -> list[Level]:
    """Report channels and stride of every level a backbone returns.

    Runs one forward pass on the meta device: no weights, no statistics. The
    default size is not square, so swapped height and width cannot hide.

    Args:
        backbone: Maps (N, C, H, W) to a sequence of NCHW tensors; on the meta device.
        size: Height and width of the probe.
        in_channels: Channels of the probe.

    Returns:
        One level per output, shallow to deep. Indices are those of the backbone's
        ``out_indices``, or 0, 1, ... if it has none.

    Raises:
        ValueError: If an output is not NCHW, its size is not that of the image over a
            whole stride, or strides decrease.
    """
    with repeated_shapes():
        outputs = forward_weightless(backbone, size, in_channels)
    return levels_of_outputs(backbone, outputs, size)


def count_parameters(part: nn.Module | nn.Parameter) -> int:
    """Count the numbers that could be trained."""
    if isinstance(part, nn.Parameter):
        return part.numel()
    return sum(parameter.numel() for parameter in part.parameters())


def levels_of_outputs(
    net: nn.Module, outputs: Sequence[Tensor], size: tuple[int, int]
) -> list[Level]:
    declared = getattr(net, 'levels', ())
    indices = getattr(net, 'out_indices', None)
    if indices is None or len(indices) != len(outputs):
        indices = range(len(outputs))
    levels = []
    for number, (index, output) in enumerate(zip(indices, outputs, strict=True)):
        level = measure(int(index), output, size)
        # Maps of a small image fit several strides, so the declared one comes first.
        if len(declared) == len(outputs) and _fits(declared[number], output, size):
            level = declared[number]
        levels.append(level)
    found = [level for level in levels if level is not None]
    strides = [level.stride for level in found]
    if len(found) < len(levels) or strides != sorted(strides):
        shapes = ', '.join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(
            'every output must be a map of shape (N, C, H, W) with the size of the '
            f'image over a whole stride, strides ascending; got {shapes} for an image '
            f'of {size}, which are the levels {describe_levels(found) or "none"}'
        )
    return found


def _fits(level: Level, output: Tensor, size: tuple[int, int]) -> bool:
    height, width = (-(-side // level.stride) for side in size)
    return tuple(output.shape[1:]) == (level.channels, height, width)
