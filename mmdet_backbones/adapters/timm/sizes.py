"""Which image sizes a net of timm takes, and what makes it take any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...levels import PROBE_SIZE, measure
from ...shapes.build import on_meta
from ...shapes.repeated import repeated_shapes
from .nets import Options, SizeRule, build, features

# Arguments that free a net of a fixed image size, by the names timm's classes use.
_FREEING: tuple[dict[str, Any], ...] = (
    {},
    {'dynamic_img_size': True, 'dynamic_img_pad': True},
    {'dynamic_img_size': True},
    {'strict_img_size': False},
)
# Windows of 7 or 8 at the deepest level, and patches of patches.
_MULTIPLES = (1, 2, 3, 7, 8)


def outlined(model_name: str, options: Options, indices: Sequence[int]) -> nn.Module:
    """Build an extractor on the meta device, in eval mode."""
    # In eval mode batch normalisation costs half as much on this device.
    return on_meta(lambda: build(model_name, options, indices)).eval()


def free(
    model_name: str, options: Options, in_channels: int, indices: Sequence[int]
) -> tuple[nn.Module, SizeRule]:
    """Find the arguments and the padding under which a net takes any image.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.
        indices: Numbers of the maps of the net.

    Returns:
        The extractor of all maps on the meta device, and what it takes.
    """
    count = len(indices)
    taken = {name for name, _ in options}
    best: tuple[int, nn.Module, SizeRule] | None = None
    for arguments in _FREEING if 'img_size' not in taken else ():
        try:
            net = outlined(model_name, (*options, *arguments.items()), indices)
        except TypeError:
            continue
        if _is_fixed(net):
            continue
        multiple, aligned = _padding(net, in_channels, count)
        if aligned and (best is None or aligned > best[0]):
            best = (aligned, net, SizeRule(tuple(arguments.items()), multiple))
        if aligned == count:
            break
    if best is not None:
        return best[1:]
    net = outlined(model_name, options, indices)
    given = dict(options).get('img_size')
    size = given or cast(Any, net).pretrained_cfg['input_size'][-2:]
    if (
        not given
        and _is_fixed(net)
        and _same_at_twice(net, model_name, options, indices, size)
    ):
        multiple, aligned = _padding(net, in_channels, count)
        if aligned:
            return net, SizeRule((), multiple)
    return net, SizeRule((), fixed=(size[0], size[1]))


def _same_at_twice(
    net: nn.Module,
    model_name: str,
    options: Options,
    indices: Sequence[int],
    size: Sequence[int],
) -> bool:
    """Tell whether a net is made of the same tensors for images of twice the size.

    timm declares one size for nets, such as XCiT and Twins, that read it off the image.
    Position tables and windows that follow the size would differ.
    """
    twice = ('img_size', (2 * size[0], 2 * size[1]))
    try:
        other = outlined(model_name, (*options, twice), indices)
    except Exception:  # whatever a class raises that does not take the argument
        return False
    return _shapes(other) == _shapes(net)


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    named = chain(net.named_parameters(), net.named_buffers())
    return {name: tensor.shape for name, tensor in named}


def _is_fixed(net: nn.Module) -> bool:
    traits: Any = getattr(net, '_traits', {})
    return bool(traits.get('fixed_input_size', False))


def _padding(net: nn.Module, in_channels: int, count: int) -> tuple[int, int]:
    """Choose the smallest multiple that gives the most levels of whole strides."""
    deepest = math.ceil(max(strides_of(net)))
    best, fruitless = (1, 0), 0
    for multiple in (1, *(factor * deepest for factor in _MULTIPLES)):
        aligned = _aligned(net, in_channels, multiple)
        if aligned is None:
            continue
        fruitless = 0 if aligned > best[1] else fruitless + 1
        if aligned > best[1]:
            best = (multiple, aligned)
        # Padding mends windows and patches, never convolutions without padding.
        if aligned == count or fruitless == 2:
            break
    return best


def _aligned(net: nn.Module, in_channels: int, multiple: int) -> int | None:
    """Count the levels of whole strides; None if the net fails on some size."""
    rule = SizeRule((), multiple)
    try:
        levels = [
            measure(0, output, padded(PROBE_SIZE, multiple))
            for output in probe(net, rule, in_channels)
        ]
        # Odd if nothing is padded, and of several multiples along both sides.
        odd = (PROBE_SIZE[0] + multiple, PROBE_SIZE[1] + 2 * multiple + 1)
        outputs = probe(net, rule, in_channels, odd)
    except Exception:  # whatever a net raises for a size that it does not take
        return None
    size = padded(odd, multiple)
    return sum(
        level is not None
        and level.stride == declared
        and tuple(output.shape[2:]) == tuple(-(-s // level.stride) for s in size)
        for level, output, declared in zip(
            levels, outputs, strides_of(net), strict=True
        )
    )


def strides_of(net: nn.Module) -> list[int]:
    """Strides that timm declares for the maps of an extractor."""
    info: Any = net.feature_info
    return info.reduction()


def padded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Round height and width up to a multiple."""
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def probe(
    net: nn.Module,
    sizes: SizeRule,
    in_channels: int,
    size: tuple[int, int] = PROBE_SIZE,
) -> list[Tensor]:
    """Run an extractor that stands on the meta device."""
    with repeated_shapes(), torch.no_grad(), torch.device('meta'):
        image = torch.zeros(2, in_channels, *(sizes.fixed or size))
        return features(net, image, sizes.multiple)
