"""The stages of ResNet, built from mmdet's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmcv.cnn.bricks import DropPath
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.backbones.resnext import Bottleneck as GroupedBottleneck
from mmdet.models.layers import ResLayer
from mmengine.model import constant_init
from torch import Tensor, nn

from ..checkpointing import checkpoint_blocks
from .net import StagePlan, deformable, init_layer, read_any_format


class WideBottleneck(Bottleneck):
    """mmdet's bottleneck around a 3x3 convolution of any width.

    Args:
        inplanes: Channels of the input.
        planes: A quarter of the channels of the output.
        width: Channels of the 3x3 convolution, a divisor of those of the output.
        with_cp: Whether activations are recomputed instead of kept; unlike mmdet's
            blocks it counts a batch once in the running statistics.
        **options: As for ``Bottleneck``.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        width: int,
        with_cp: bool = False,
        **options: Any,
    ) -> None:
        # The constructor above makes so many times its planes of the output.
        self.expansion = planes * Bottleneck.expansion // width
        super().__init__(inplanes, width, **options)
        if with_cp:
            checkpoint_blocks([self])


class DroppedBasicBlock(BasicBlock):
    """mmdet's basic block with stochastic depth.

    Args:
        inplanes: Channels of the input.
        planes: Channels of the output.
        drop_path: Probability of dropping the residual of a sample in training.
        with_cp: As for :class:`WideBottleneck`.
        **options: As for ``BasicBlock``.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        drop_path: float,
        with_cp: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(inplanes, planes, **options)
        self.drop_path = DropPath(drop_path)
        if with_cp:
            checkpoint_blocks([self])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inplanes, H, W) to (N, planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.drop_path(self.norm2(self.conv2(out)))
        return self.relu(out + shortcut)


@dataclass(frozen=True)
class BlockMaker:
    """Makes the blocks of one stage where mmdet's ``ResLayer`` takes a class.

    ResLayer passes the same arguments to all blocks, which share one ``dcn`` dict and
    take things out of it. Here every block has its own, and its own choice whether it
    is deformable.

    Attributes:
        plan: What the stage looks like.
        block: ``'basic'``, two 3x3 convolutions, or ``'bottleneck'``, one between two
            of 1x1.
        base_width: Channels of a group in the first stage.
        base_channels: Channels of the first stage before its expansion.
        stride_in_1x1: Whether the first convolution of a bottleneck strides.
        rates: Of stochastic depth, of this block and of those that follow.
    """

    plan: StagePlan
    block: str
    base_width: int
    base_channels: int
    stride_in_1x1: bool
    rates: Iterator[float]

    @property
    def expansion(self) -> int:
        """Channels of the output per plane."""
        return (BasicBlock if self.block == 'basic' else Bottleneck).expansion

    def make_stage(self, in_channels: int) -> nn.Sequential:
        """Build the blocks of the stage.

        Args:
            in_channels: Channels of its input.

        Returns:
            Maps (N, in_channels, H, W) to (N, channels, H / stride, W / stride),
            rounded up.
        """
        return ResLayer(
            self,
            in_channels,
            self.plan.channels // self.expansion,
            self.plan.blocks,
            stride=self.plan.stride,
            avg_down=self.plan.avg_down,
            conv_cfg=self.plan.conv_cfg,
            norm_cfg=self.plan.norm_cfg,
        )

    def __call__(
        self, inplanes: int, planes: int, stride: int, **options: Any
    ) -> nn.Module:
        """Make one block; the arguments are those of mmdet's blocks."""
        options.update(stride=stride, dilation=self.plan.dilation)
        rate = next(self.rates)
        if self.block == 'basic' and rate:
            return DroppedBasicBlock(inplanes, planes, rate, **options)
        if self.block == 'basic':
            return BasicBlock(inplanes, planes, **options)
        dcn = deformable(self.plan.dcn, stride)
        block = self._bottleneck(
            inplanes,
            planes,
            style='caffe' if self.stride_in_1x1 else 'pytorch',
            dcn=dcn,
            plugins=list(self.plan.plugins) or ([] if rate else None),
            **options,
        )
        if rate:
            # Where mmdet's block runs its last plugins, before the shortcut is added.
            block.drop_path = DropPath(rate)
            block.after_conv3_plugin_names.append('drop_path')
        if dcn is not None:
            read_any_format(block.conv2)
        return block

    def _bottleneck(self, inplanes: int, planes: int, **options: Any) -> Any:
        if self.plan.groups > 1:
            return GroupedBottleneck(
                inplanes,
                planes,
                groups=self.plan.groups,
                base_width=self.base_width,
                base_channels=self.base_channels,
                **options,
            )
        if self.plan.width != planes:
            return WideBottleneck(inplanes, planes, self.plan.width, **options)
        return Bottleneck(inplanes, planes, **options)


def init_block(block: Any, zero_last: bool) -> None:
    """Draw new weights; with ``zero_last`` the block starts as its shortcut."""
    shortcut = block.downsample if block.downsample is not None else ()
    norms = [block.norm1, block.norm2]
    convolutions = [block.conv1, block.conv2]
    if not isinstance(block, BasicBlock):
        norms.append(block.norm3)
        convolutions.append(block.conv3)
    for layer in (*convolutions, *norms, *shortcut):
        init_layer(layer)
    if zero_last:
        constant_init(norms[-1], 0)
