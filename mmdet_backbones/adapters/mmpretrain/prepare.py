"""From the dict of an mmpretrain config to a net that is ready to be a backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from ...backbones.checkpointing import checkpoint_blocks
from ...levels import Level, describe_levels, select_levels
from ..adapted import AdaptedNet, blocks_in
from ..structure import RefusedError, SizeRule
from ..trim import STRATEGIES, shorten
from .nets import ZOO, Spec, build, make_spec, whole
from .structure import examine, picks_of, structure_of, trainable

_Stages = Sequence[Sequence[str]]
# By which classes recompute activations themselves, and count a batch twice.
_OWN_CHECKPOINTS = ('memory_efficient', 'use_checkpoint')
_Plan = tuple[Callable[..., None] | None, tuple[str, ...]]


def prepare(
    owner: str,
    model: Mapping[str, Any],
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
    in_channels: int,
    with_cp: bool,
) -> AdaptedNet:
    """Build a net with the chosen levels and nothing that they do not need.

    Args:
        owner: What messages call the backbone.
        model: ``type`` and arguments of a class of mmpretrain.
        out_indices: Level numbers as that class counts them, or None.
        out_strides: Strides instead of ``out_indices``, or None. Of the levels that
            share a stride the deepest one has it, except for the convolution in front
            of a classifier.
        in_channels: Channels of the image.
        with_cp: Whether blocks recompute their activations in the backward pass.

    Raises:
        TypeError: If an argument is unknown or of the wrong type.
        ValueError: If the class or a level is not there, or the net is no backbone.
    """
    own = [name for name in _OWN_CHECKPOINTS if model.get(name)]
    spec = make_spec(owner, {**model, **dict.fromkeys(own, False)}, in_channels)
    with_cp = with_cp or bool(own)
    found = structure_of(spec)
    levels = _choose(spec, found.levels, out_indices, out_strides)
    indices = tuple(level.index for level in levels)
    strategy, unused = _plan(spec, indices)
    net = build(spec, indices)
    if strategy is not None:
        strategy(net, unused, indices[-1] + 1, found.count)
    if with_cp:
        checkpoint_blocks(blocks_in(net, found.stages))
    picks = picks_of(spec, indices)
    every = tuple(level.index for level in found.levels)
    uncut = partial(whole, spec, every)
    return AdaptedNet(net, levels, picks, found.stages, found.sizes, owner, uncut)


def _choose(
    spec: Spec,
    levels: Sequence[Level],
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
) -> tuple[Level, ...]:
    """Choose levels; by stride never the convolution in front of a classifier."""
    if out_strides is not None and out_indices is None and spec.has_head_level:
        levels = levels[:-1]
    return select_levels(levels, out_indices, out_strides, owner=spec.owner)


@lru_cache(maxsize=64)
def _plan(spec: Spec, indices: tuple[int, ...]) -> _Plan:
    """Find on the meta device what can go, and how."""
    found = structure_of(spec)
    if len(indices) == found.count and not found.unused:
        return None, ()
    wanted = tuple(level for level in found.levels if level.index in indices)
    # Mostly it is what the deeper levels add. The full search costs a run of the net.
    deeper = found.stages[len(found.stages) - (found.count - indices[-1] - 1) :]
    guess = (*(name for stage in deeper for name in stage), *found.unused)
    if _leaves_nothing(spec, shorten, guess, indices, wanted):
        return shorten, guess
    with torch.device('meta'):
        net = trainable(build(spec, indices))
    unused = examine(spec, net, indices, found.sizes).unused
    if not unused:
        return None, ()
    for strategy in STRATEGIES:
        if _leaves_nothing(spec, strategy, unused, indices, wanted):
            return strategy, unused
    raise RefusedError(
        f'{spec.owner}: no output of out_indices={indices} depends on '
        f'{", ".join(unused[:5])}, and this class cannot run without: such parameters '
        'would get no gradient. Request the deepest level too; the levels are '
        f'{describe_levels(found.levels)}'
    )


def _leaves_nothing(
    spec: Spec,
    strategy: Callable[..., None],
    unused: tuple[str, ...],
    indices: tuple[int, ...],
    wanted: tuple[Level, ...],
) -> bool:
    """Try a way to take parts out: the levels stay, nothing useless is left."""
    found = structure_of(spec)
    try:
        with torch.device('meta'):
            net = trainable(build(spec, indices))
            strategy(net, unused, indices[-1] + 1, found.count)
        left = examine(spec, net, indices, found.sizes)
    except Exception:  # whatever a net raises that needs the part after all
        return False
    return left.levels == wanted and not left.unused


@dataclass(frozen=True)
class Family:
    """What is known about the nets of a class that has one of its own here.

    It is read off the built net. The others have to be run to be known.

    Attributes:
        count: Maps the arguments of a net to the number of its levels.
        channels: Maps a net to the channels of its levels.
        strides: Maps a net to the stride that each level adds to the one before.
        stages: Maps the number of levels to the names of parts by stage.
        pads: Whether the class pads images of any size by itself.
        stem: Maps a net to its stem as a level, number -1, that is asked for by stride.
    """

    count: Callable[[Mapping[str, Any]], int]
    channels: Callable[[Any], Sequence[int]]
    strides: Callable[[Any], Sequence[int]]
    stages: Callable[[int], Sequence[Sequence[str]]]
    pads: bool = True
    stem: Callable[[Any], Level] | None = None


def _stem_and_layers(stem: str, layers: str, first: int, count: int) -> list[list[str]]:
    return [[stem], *([f'{layers}{i}'] for i in range(first, first + count))]


def _mobile_v2_layers(net: Any) -> list[Any]:
    return [getattr(net, f'layer{i}') for i in range(1, 8)]


def _mobile_v3_layers(net: Any) -> list[Any]:
    # All blocks, without the stem and the convolution at the end.
    return [getattr(net, name) for name in net.layers[1:-1]]


def _depths(table: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], int]:
    def count(arguments: Mapping[str, Any]) -> int:
        arch = arguments['arch']
        if isinstance(arch, str):
            arch = table.get(arch, table.get(arch.lower()))
        # Without depths the class says what a dict needs.
        return len(arch.get('depths', ()))

    return count


def _swin_strides(net: Any) -> list[int]:
    merges = [stage.downsample.sampler.stride[0] for stage in net.stages[:-1]]
    return [net.patch_embed.projection.stride[0], *merges]


def _convnext_stages(count: int) -> list[list[str]]:
    stages = [
        [f'downsample_layers.{i}', f'stages.{i}', f'norm{i}'] for i in range(count)
    ]
    return [stages[0][:1], stages[0][1:], *stages[1:]]


FAMILIES = {
    'ShuffleNetV2': Family(
        count=lambda _: 4,
        channels=lambda net: [
            *(2 * s[-1].branch2[-1].conv.out_channels for s in net.layers[:-1]),
            net.layers[-1].conv.out_channels,
        ],
        strides=lambda _: (8, 2, 2, 1),
        stages=lambda count: _stem_and_layers('conv1', 'layers.', 0, count),
        stem=lambda net: Level(-1, net.conv1.conv.out_channels, 4),
    ),
    'MobileNetV2': Family(
        count=lambda _: 8,
        channels=lambda net: [
            *(s[-1].conv[-1].conv.out_channels for s in _mobile_v2_layers(net)),
            net.conv2.conv.out_channels,
        ],
        strides=lambda net: [
            2 * net.layer1[0].stride,
            *(s[0].stride for s in _mobile_v2_layers(net)[1:]),
            1,
        ],
        stages=lambda _: [*_stem_and_layers('conv1', 'layer', 1, 7), ['conv2']],
    ),
    'MobileNetV3': Family(
        count=lambda arguments: (
            len(ZOO.MobileNetV3.arch_settings[arguments['arch']]) + 2
        ),
        channels=lambda net: [
            net.layer0.conv.out_channels,
            *(b.linear_conv.conv.out_channels for b in _mobile_v3_layers(net)),
            getattr(net, net.layers[-1]).conv.out_channels,
        ],
        strides=lambda net: [
            2,
            *(b.depthwise_conv.conv.stride[0] for b in _mobile_v3_layers(net)),
            1,
        ],
        stages=lambda count: _stem_and_layers('layer0', 'layer', 1, count - 1),
    ),
    'SwinTransformer': Family(
        count=_depths(ZOO.SwinTransformer.arch_zoo),
        channels=lambda net: net.num_features,
        strides=_swin_strides,
        stages=lambda count: [
            ['patch_embed', 'absolute_pos_embed'],
            *([f'stages.{i}', f'norm{i}'] for i in range(count)),
        ],
    ),
    'ConvNeXt': Family(
        count=_depths(ZOO.ConvNeXt.arch_settings),
        channels=lambda net: net.channels,
        strides=lambda net: [
            net.downsample_layers[0][0].stride[0],
            *(layer[1].stride[0] for layer in net.downsample_layers[1:]),
        ],
        stages=_convnext_stages,
        pads=False,
    ),
}


def prepare_named(
    model: Mapping[str, Any],
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
    in_channels: int,
    with_cp: bool,
) -> AdaptedNet:
    """Build a net of :data:`FAMILIES` with the chosen levels and what they need.

    Args:
        model: ``type`` and arguments.
        out_indices: See :func:`prepare`, as for all that follow.
        out_strides: Strides instead of ``out_indices``, or None.
        in_channels: Channels of the image.
        with_cp: Whether blocks recompute their activations in the backward pass.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has no such value, or a level is not there.
    """
    owner = str(model['type'])
    family = FAMILIES[owner]
    spec = make_spec(owner, model, in_channels)
    count = family.count(spec.arguments)
    net: Any = build(spec, range(count))
    strides = accumulate(family.strides(net), int.__mul__)
    available = [
        Level(index, channels, stride)
        for index, (channels, stride) in enumerate(
            zip(family.channels(net), strides, strict=True)
        )
    ]
    sizes = SizeRule() if family.pads else SizeRule(available[-1].stride)
    if family.stem is not None and out_strides is not None:
        available.insert(0, family.stem(net))
    levels = _choose(spec, available, out_indices, out_strides)
    indices = tuple(level.index for level in levels)
    net.out_indices = indices
    stages = tuple(tuple(stage) for stage in family.stages(count))
    _leave(net, stages, indices, count)
    if with_cp:
        checkpoint_blocks(blocks_in(net, stages))
    picks, uncut = tuple(range(len(indices))), partial(whole, spec, tuple(range(count)))
    return AdaptedNet(net, levels, picks, stages, sizes, owner, uncut)


def _leave(net: nn.Module, stages: _Stages, indices: Sequence[int], count: int) -> None:
    """Leave nothing in a net but what its levels need."""
    for index in set(range(count)) - set(indices):
        if hasattr(net, f'norm{index}'):
            delattr(net, f'norm{index}')
    kept = indices[-1] + 1
    deeper = stages[len(stages) - (count - kept) :]
    shorten(net, [name for stage in deeper for name in stage], kept, count)
    last = getattr(net, 'stages', [None])[-1]
    if getattr(last, 'downsample', None) is not None:
        last.downsample = None
