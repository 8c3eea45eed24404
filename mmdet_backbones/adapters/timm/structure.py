"""Which sizes, levels and stages a net of timm has.

The facts come from building the net on the meta device and running it there, not from
what its class declares: of timm's nets some give other maps than they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import timm
from torch import Tensor, nn

from ...errors import ArgumentError
from ...levels import PROBE_SIZE, Level, map_size
from ...shapes.build import on_meta
from ...shapes.structure import Structure, find_structure, part_of, replace_part
from ..structure import RefusedError, SizeRule, WholeStructure
from .mistakes import explained, nearest_sizes
from .nets import (
    Options,
    build_on_meta,
    features,
    for_whole,
    free,
    has_norm,
    probe,
    strides_of,
)

# Large enough that the deepest map of such a net is not empty.
_UNPADDED_SIZE = (224, 320)
# Cells that such nets lose along a side at most.
_MOST_MISSING = 4


def structure_of(model_name: str, options: Options, in_channels: int) -> WholeStructure:
    """Find sizes, levels and stages of a net on the meta device.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.

    Returns:
        Its structure; levels are numbered as timm counts them.

    Raises:
        TypeError: If the net does not take one of the arguments.
        ValueError: If it gives no maps of whole strides, or ignores an argument.
    """
    found = _structure_or_error(model_name, options, in_channels)
    if isinstance(found, Exception):
        raise found
    return found


@lru_cache(maxsize=64)
def _structure_or_error(
    model_name: str, options: Options, in_channels: int
) -> WholeStructure | Exception:
    # A check asks more than once, and what to write takes seconds to find.
    examine = partial(_structure, model_name, in_channels)
    try:
        return examine(options)
    except ArgumentError as error:
        return error
    except Exception as error:  # classes check their arguments in many ways
        return explained(examine, model_name, options, error)


def sizes_near(
    model_name: str, options: Options, in_channels: int, size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Find sizes near a size for which a net has all of its levels.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments; their ``img_size`` does not count.
        in_channels: Channels of the image.
        size: Height and width.

    Returns:
        The size itself if it is one, or else the nearest larger and smaller ones.
    """
    examine = partial(_structure, model_name, in_channels)
    others = tuple(option for option in options if option[0] != 'img_size')
    count = len(examine(others).levels)
    return nearest_sizes(examine, model_name, others, size, count)


def lost_levels(
    model_name: str, options: Options, in_channels: int, count: int
) -> ValueError | None:
    """Say that a net lost some of its levels to an image size that does not divide.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.
        count: Number of levels that it has with these.

    Returns:
        What to raise; None if it would have no more without an ``img_size``.
    """
    size = dict(options).get('img_size')
    sizes = sizes_near(model_name, options, in_channels, size) if size else []
    if not sizes or sizes == [size]:
        return None
    shown = ' or '.join(f'img_size={near}' for near in sizes)
    return ArgumentError(
        f"timm's '{model_name}' has {count} levels with img_size={size} and more with "
        f'sizes that its strides divide: write {shown}',
        dict(img_size=sizes[0]),
    )


def _structure(model_name: str, in_channels: int, options: Options) -> WholeStructure:
    indices = _level_numbers(model_name, options)
    net, sizes = free(model_name, options, in_channels, indices)
    found = _examine(net, indices, in_channels, sizes)
    strides = dict(zip(indices, strides_of(net), strict=True))
    levels = tuple(lv for lv in found.levels if lv.stride == strides[lv.index])
    if not levels:
        levels, sizes = _unpadded(net, indices, in_channels), SizeRule()
    if not levels:
        raise RefusedError(
            'none of its maps has the size of the image over a whole stride'
        )
    _check_honoured(model_name, options, net, levels)
    return WholeStructure(levels, found.stages, found.unused, sizes, len(indices))


@lru_cache(maxsize=64)
def useless_parts(
    model_name: str, options: Options, in_channels: int, indices: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name what none of the chosen levels depends on.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.
        indices: The chosen levels.

    Returns:
        Modules that can be replaced by ``nn.Identity``, and parameters that have to
        stay because the net still reads them.
    """
    whole = structure_of(model_name, options, in_channels)
    if len(indices) == whole.count and not whole.unused:
        return (), ()
    sizes = whole.sizes
    net = build_on_meta(model_name, (*options, *sizes.arguments), indices)
    unused = _examine(net, indices, in_channels, sizes).unused
    run = partial(probe, net, in_channels, sizes.padded(PROBE_SIZE))
    removable = [name for name in reversed(unused) if _can_go(net, name, run)]
    return tuple(removable), tuple(name for name in unused if name not in removable)


def _can_go(net: nn.Module, name: str, run: Callable[[], list[Tensor]]) -> bool:
    part = part_of(net, name)
    if isinstance(part, nn.Parameter):
        return False
    expected = [output.shape for output in run()]
    replace_part(net, name, nn.Identity())
    try:
        if [output.shape for output in run()] == expected:
            return True
    except Exception:  # whatever a net raises that needs the part after all
        pass
    replace_part(net, name, part)
    return False


def _level_numbers(model_name: str, options: Options) -> tuple[int, ...]:
    net = on_meta(
        lambda: timm.create_model(model_name, **for_whole(model_name, options))
    )
    info: Any = getattr(net, 'feature_info', None)
    if not info:
        raise RefusedError('it does not say which feature maps it has')
    # Without the name of a module there is nothing to take the map from.
    return tuple(
        n for n, entry in enumerate(list(info)) if entry.get('module', n) != ''
    )


def _unpadded(
    net: nn.Module, indices: Sequence[int], in_channels: int
) -> tuple[Level, ...]:
    """Levels of a net whose convolutions without padding cut strips off its maps."""
    levels = []
    outputs = probe(net, in_channels, _UNPADDED_SIZE)
    for index, output, stride in zip(indices, outputs, strides_of(net), strict=True):
        whole = map_size(_UNPADDED_SIZE, stride)
        missing = [w - given for w, given in zip(whole, output.shape[2:], strict=True)]
        if output.dim() == 4 and all(0 <= m <= _MOST_MISSING for m in missing):
            levels.append(Level(index, output.shape[1], stride))
    return tuple(levels)


def _examine(
    net: nn.Module, indices: Sequence[int], in_channels: int, sizes: SizeRule
) -> Structure:
    return find_structure(
        net,
        lambda x: features(net, x),
        indices=indices,
        in_channels=in_channels,
        size=sizes.padded(PROBE_SIZE),
        skip_unaligned=True,
    )


def _check_honoured(
    model_name: str, options: Options, net: nn.Module, levels: Sequence[Level]
) -> None:
    """Refuse arguments that timm's class took and did nothing with."""
    given = dict(options)
    ignored: dict[str, str] = {}
    rate = given.get('drop_path_rate')
    if rate and not any(getattr(m, 'drop_prob', None) for m in net.modules()):
        ignored['drop_path_rate'] = f'={rate}: it has no stochastic depth'
    stride = given.get('output_stride')
    if stride and max(level.stride for level in levels) > stride:
        ignored['output_stride'] = f'={stride}'
    if 'norm_layer' in given:
        others = tuple((k, v) for k, v in options if k != 'norm_layer')
        plain = build_on_meta(model_name, others, [level.index for level in levels])
        # mmcv's names are the defaults of many configs.
        asked = has_norm(net, str(given['norm_layer']))
        if not asked and _kinds(plain) == _kinds(net):
            ignored['norm_layer'] = f'={given["norm_layer"]!r}'
    if ignored:
        shown = '; '.join(name + text for name, text in ignored.items())
        raise ArgumentError(
            f"timm's '{model_name}' does nothing with {shown}: leave it out",
            dict.fromkeys(ignored),
        )


def _kinds(net: nn.Module) -> Counter:
    return Counter(type(module) for module in net.modules())
