"""What ResNet and Res2Net share: a stem, then stages of residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import constant_init, kaiming_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...levels import IMAGENET, Level, select_levels
from ..contract import Backbone
from ..frozen_norm import norm_trains
from .arguments import default_strides
from .plugins import plugins_of_stage

STEM_STRIDE = 4


@dataclass(frozen=True)
class StagePlan:
    """One stage of a net.

    Attributes:
        blocks: Number of blocks.
        width: Channels of a 3x3 convolution; of one split in a Res2Net.
        channels: Output channels.
        stride: Stride of the first block.
        dilation: Dilation of all 3x3 convolutions.
        dcn: Deformable convolution instead of the 3x3 ones, or None.
        plugins: Extra layers of every block, entries of mmdet's ``plugins``.
    """

    blocks: int
    width: int
    channels: int
    stride: int
    dilation: int
    dcn: dict[str, Any] | None
    plugins: tuple[dict[str, Any], ...]


class StemStyle(Protocol):
    """Kinds of layers, read from what the blocks of a net have in common."""

    @property
    def conv_cfg(self) -> dict[str, Any] | None:
        """As mmcv's ``build_conv_layer`` takes it."""

    @property
    def norm_cfg(self) -> dict[str, Any]:
        """As mmcv's ``build_norm_layer`` takes it."""


def plan_stages(
    stage_blocks: Sequence[int],
    width: int,
    channels: int,
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    plugins: Sequence[dict[str, Any]] | None,
) -> list[StagePlan]:
    """Lay out the stages from arguments that were found to be right.

    Args:
        stage_blocks: Number of blocks per stage.
        width: That of the first stage; it doubles with each stage.
        channels: Output channels of the first stage; they double with each stage.
        strides: One per stage, or None.
        dilations: One per stage, or None.
        dcn: Kind of deformable convolution, or None.
        stage_with_dcn: One flag per stage, or None.
        plugins: Extra layers, or None.
    """
    count = len(stage_blocks)
    strides = strides if strides is not None else default_strides(count)
    dilations = dilations if dilations is not None else (1,) * count
    flags = stage_with_dcn if stage_with_dcn is not None else (False,) * count
    return [
        StagePlan(
            blocks=stage_blocks[i],
            width=width * 2**i,
            channels=channels * 2**i,
            stride=strides[i],
            dilation=dilations[i],
            dcn=dcn if flags[i] else None,
            plugins=plugins_of_stage(plugins, i),
        )
        for i in range(count)
    ]


def stage_levels(plans: Sequence[StagePlan]) -> list[Level]:
    """Name the output of every stage."""
    strides = accumulate((p.stride for p in plans), int.__mul__, initial=STEM_STRIDE)
    next(strides)
    return [
        Level(index, plan.channels, stride)
        for index, (plan, stride) in enumerate(zip(plans, strides, strict=True))
    ]


def init_layer(layer: nn.Module) -> None:
    """Initialise a convolution or a normalisation as mmdet's ResNet does.

    Other layers, deformable convolutions and plugins among them, keep the values
    that their own constructors chose.
    """
    if isinstance(layer, nn.Conv2d):
        kaiming_init(layer)
    elif isinstance(layer, (_NormBase, nn.GroupNorm)):
        constant_init(layer, 1)


class ResidualNet(Backbone):
    """A stem and any number of stages; level n is the output of stage n + 1.

    Stages above the deepest level are not built. A family says in :meth:`_init_block`
    how a block is initialised.

    Args:
        plans: What the stages look like.
        style: Kinds of layers of the stem.
        make_stage: Builds the blocks of a stage from its plan and the channels of its
            input; called shallow to deep.
        out_indices: Stages to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem's output.
        deep_stem: Three 3x3 convolutions instead of one of 7x7.
        zero_init_residual: Whether every block starts as its shortcut; it never does
            if its normalisation does not train.
        frozen_stages: See :class:`Backbone`, like all that follow.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If a level is not there.
    """

    preprocess = IMAGENET

    def __init__(
        self,
        plans: Sequence[StagePlan],
        style: StemStyle,
        make_stage: Callable[[StagePlan, int], nn.Sequential],
        *,
        out_indices: Sequence[int] | None,
        out_strides: Sequence[int] | None,
        in_channels: int,
        stem_channels: int,
        deep_stem: bool,
        zero_init_residual: bool,
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        levels = select_levels(
            stage_levels(plans), out_indices, out_strides, owner=type(self).__name__
        )
        super().__init__(levels, frozen_stages, norm_eval, init_cfg)
        self.deep_stem = deep_stem
        # A scale that never trains could not leave zero.
        self.zero_init_residual = zero_init_residual and norm_trains(style.norm_cfg)
        self._build_stem(in_channels, stem_channels, style)
        self.res_layers: list[str] = []
        for number, plan in enumerate(plans[: levels[-1].index + 1], start=1):
            channels = plans[number - 2].channels if number > 1 else stem_channels
            self.add_module(f'layer{number}', make_stage(plan, channels))
            self.res_layers.append(f'layer{number}')
        self.freeze()

    def _build_stem(self, in_channels: int, channels: int, style: StemStyle) -> None:
        def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
            return build_conv_layer(
                style.conv_cfg,
                inputs,
                outputs,
                kernel,
                stride=stride,
                padding=kernel // 2,
                bias=False,
            )

        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        if not self.deep_stem:
            self.conv1 = conv(in_channels, channels, kernel=7, stride=2)
            self.norm1_name, norm = build_norm_layer(
                style.norm_cfg, channels, postfix=1
            )
            self.add_module(self.norm1_name, norm)
            self.relu = nn.ReLU(inplace=True)
            return
        half = max(channels // 2, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in (in_channels, half), (half, half), (half, channels):
            layers.append(conv(inputs, outputs, kernel=3, stride=1 if layers else 2))
            layers.append(build_norm_layer(style.norm_cfg, outputs)[1])
            layers.append(nn.ReLU(inplace=True))
        self.stem = nn.Sequential(*layers)

    def stage_modules(self, stage: int) -> Sequence[nn.Module]:
        """Modules of one stage, stage 0 is the stem; none for a dropped stage."""
        if stage > 0:
            built = stage <= len(self.res_layers)
            return [getattr(self, f'layer{stage}')] if built else []
        if self.deep_stem:
            return [self.stem]
        return [self.conv1, getattr(self, self.norm1_name)]

    def blocks(self) -> list[Any]:
        """All residual blocks, shallow to deep."""
        return [block for name in self.res_layers for block in getattr(self, name)]

    def _init_block(self, block: Any) -> None:
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the weights, then apply ``init_cfg`` on top.

        Layers that ``init_cfg`` does not name or its checkpoint does not cover have
        the values mmdet's ResNet starts from: Kaiming for convolutions, one and zero
        for normalisation, offsets of zero for deformable convolutions.

        Raises:
            PretrainedWeightsError: As :meth:`Backbone.init_weights`.
        """
        if not self.is_init:
            for part in self.stage_modules(0):
                for layer in part.modules():
                    init_layer(layer)
            for block in self.blocks():
                self._init_block(block)
        super().init_weights()

    def _forward_stem(self, x: Tensor) -> Tensor:
        if self.deep_stem:
            return self.stem(x)
        return self.relu(getattr(self, self.norm1_name)(self.conv1(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H / stride, W / stride) per level.

        Sizes are rounded up; the memory format of ``x`` is kept.
        """
        wanted = self.out_indices
        outputs = []
        x = self.maxpool(self._forward_stem(x))
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in wanted:
                outputs.append(x)
        return tuple(outputs)
