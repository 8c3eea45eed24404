"""Which sizes, levels and stages a net of timm has.

The facts come from building the net on the meta device and running it there, not from
what its class declares: of timm's nets some give other maps than they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
from torch import nn

from ...levels import PROBE_SIZE, Level
from ...shapes.build import on_meta
from ...shapes.structure import Anatomy, find_structure, part_of
from .nets import FROZEN_BN, Options, SizeRule, features, remove, replace
from .sizes import free, outlined, padded, probe, strides_of

# Large enough that the deepest map of such a net is not empty.
_UNPADDED_SIZE = (224, 320)
# Cells that such nets lose along a side at most.
_MOST_MISSING = 4


@dataclass(frozen=True)
class Outline:
    """What a net of timm has to offer as a backbone.

    Attributes:
        levels: All levels of whole strides, shallow to deep, as timm counts them.
        stages: Names of modules and bare parameters by stage; 0 is the stem.
        sizes: Which images it takes.
        count: Number of maps, those of no whole stride included.
        unused: Names of parts that none of the maps depends on.
    """

    levels: tuple[Level, ...]
    stages: tuple[tuple[str, ...], ...]
    sizes: SizeRule
    count: int
    unused: tuple[str, ...]


@lru_cache(maxsize=64)
def outline(model_name: str, options: Options, in_channels: int) -> Outline:
    """Find sizes, levels and stages of a net on the meta device.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.

    Returns:
        The outline.

    Raises:
        TypeError: If the net does not take one of the arguments.
        ValueError: If it gives no maps of whole strides, or ignores an argument.
    """
    indices = _level_numbers(model_name, options)
    try:
        net, sizes = free(model_name, options, in_channels, indices)
        anatomy = _dissect(net, indices, in_channels, sizes)
    except _RefusedError:
        raise
    except Exception as error:
        raise _refused(model_name, _last_line(error)) from error
    strides = dict(zip(indices, strides_of(net), strict=True))
    levels = tuple(lv for lv in anatomy.levels if lv.stride == strides[lv.index])
    if not levels:
        levels, sizes = _unpadded(net, indices, in_channels), SizeRule(())
    if not levels:
        raise _refused(
            model_name, 'none of its maps has the size of the image over a whole stride'
        )
    _check_honoured(model_name, options, net, levels)
    return Outline(levels, anatomy.stages, sizes, len(indices), anatomy.unused)


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
    whole = outline(model_name, options, in_channels)
    if len(indices) == whole.count and not whole.unused:
        return (), ()
    sizes = whole.sizes
    net = outlined(model_name, (*options, *sizes.arguments), indices)
    unused = _dissect(net, indices, in_channels, sizes).unused
    removable = [
        name for name in reversed(unused) if _can_go(net, name, sizes, in_channels)
    ]
    return tuple(removable), tuple(name for name in unused if name not in removable)


def _can_go(net: nn.Module, name: str, sizes: SizeRule, in_channels: int) -> bool:
    part = part_of(net, name)
    if isinstance(part, nn.Parameter):
        return False
    expected = [output.shape for output in probe(net, sizes, in_channels)]
    remove(net, name)
    try:
        if [o.shape for o in probe(net, sizes, in_channels)] == expected:
            return True
    except Exception:  # whatever a net raises that needs the part after all
        pass
    replace(net, name, part)
    return False


class _RefusedError(ValueError):
    """A net that cannot be a backbone."""


def _refused(model_name: str, reason: str) -> _RefusedError:
    return _RefusedError(f"timm's '{model_name}' cannot be a backbone: {reason}")


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def _level_numbers(model_name: str, options: Options) -> tuple[int, ...]:
    arguments = {k: v for k, v in options if (k, v) != ('norm_layer', FROZEN_BN)}
    given = ', '.join(f'{name}={value!r}' for name, value in arguments.items())
    try:
        net = on_meta(lambda: timm.create_model(model_name, **arguments))
    except TypeError as error:
        raise TypeError(
            f"timm's '{model_name}' does not take {given}: {_last_line(error)}"
        ) from error
    except Exception as error:  # classes check their arguments in many ways
        if not arguments:
            raise _refused(model_name, _last_line(error)) from error
        raise ValueError(
            f"timm's '{model_name}' cannot be built with {given}: {_last_line(error)}"
        ) from error
    info: Any = getattr(net, 'feature_info', None)
    if not info:
        raise _refused(model_name, 'it does not say which feature maps it has')
    # Without the name of a module there is nothing to take the map from.
    return tuple(
        n for n, entry in enumerate(list(info)) if entry.get('module', n) != ''
    )


def _unpadded(
    net: nn.Module, indices: Sequence[int], in_channels: int
) -> tuple[Level, ...]:
    """Levels of a net whose convolutions without padding cut strips off its maps."""
    levels = []
    outputs = probe(net, SizeRule(()), in_channels, _UNPADDED_SIZE)
    for index, output, stride in zip(indices, outputs, strides_of(net), strict=True):
        missing = [
            -(-side // stride) - given
            for side, given in zip(_UNPADDED_SIZE, output.shape[2:], strict=True)
        ]
        if output.dim() == 4 and all(0 <= m <= _MOST_MISSING for m in missing):
            levels.append(Level(index, output.shape[1], stride))
    return tuple(levels)


def _dissect(
    net: nn.Module, indices: Sequence[int], in_channels: int, sizes: SizeRule
) -> Anatomy:
    size = sizes.fixed or padded(PROBE_SIZE, sizes.multiple)
    return find_structure(
        net,
        lambda x: features(net, x),
        indices=indices,
        in_channels=in_channels,
        size=size,
        skip_unaligned=True,
    )


def _check_honoured(
    model_name: str, options: Options, net: nn.Module, levels: Sequence[Level]
) -> None:
    """Refuse arguments that timm's class took and did nothing with."""
    given = dict(options)
    ignored = []
    rate = given.get('drop_path_rate')
    if rate and not any(getattr(m, 'drop_prob', None) for m in net.modules()):
        ignored.append(f'drop_path_rate={rate}: it has no stochastic depth')
    stride = given.get('output_stride')
    if stride and max(level.stride for level in levels) > stride:
        ignored.append(f'output_stride={stride}')
    if 'norm_layer' in given:
        others = tuple((k, v) for k, v in options if k != 'norm_layer')
        plain = outlined(model_name, others, [level.index for level in levels])
        if _kinds(plain) == _kinds(net):
            ignored.append(f'norm_layer={given["norm_layer"]!r}')
    if ignored:
        raise ValueError(
            f"timm's '{model_name}' does nothing with {'; '.join(ignored)}: leave it "
            'out'
        )


def _kinds(net: nn.Module) -> Counter:
    return Counter(type(module) for module in net.modules())
