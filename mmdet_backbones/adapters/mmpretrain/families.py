"""Levels and stages of the nets of mmpretrain that have a class of their own here.

They are read off the built net. The others have to be run to be known, see
:mod:`.mmpretrain_survey`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import nn

from ...backbones.checkpointing import checkpoint_blocks
from ...levels import Level
from ..adoption import Adoptee
from ..outline import SizeRule
from .nets import ZOO, build, make_spec
from .prepare import blocks, choose
from .trim import shorten

Stages = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Family:
    """What is known about the nets of one class.

    Attributes:
        count: Maps the arguments of a net to the number of its levels.
        channels: Maps a net to the channels of its levels.
        strides: Maps a net to the stride that each level adds to the one before.
        stages: Maps the number of levels to the names of parts by stage.
        pads: Whether the class pads images of any size by itself.
    """

    count: Callable[[Mapping[str, Any]], int]
    channels: Callable[[Any], Sequence[int]]
    strides: Callable[[Any], Sequence[int]]
    stages: Callable[[int], Sequence[Sequence[str]]]
    pads: bool = True


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
) -> Adoptee:
    """Build a net of :data:`FAMILIES` with the chosen levels and what they need.

    Args:
        model: ``type`` and arguments.
        out_indices: See :func:`~.mmpretrain_prepare.prepare`, as for all that follow.
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
    levels = choose(spec, available, out_indices, out_strides)
    indices = tuple(level.index for level in levels)
    net.out_indices = indices
    stages = tuple(tuple(stage) for stage in family.stages(count))
    _leave(net, stages, indices, count)
    if with_cp:
        checkpoint_blocks(blocks(net, stages))
    sizes = SizeRule() if family.pads else SizeRule(available[-1].stride)
    return Adoptee(net, levels, tuple(range(len(indices))), stages, sizes, owner)


def _leave(net: nn.Module, stages: Stages, indices: Sequence[int], count: int) -> None:
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
