"""The residual block of Res2Net: hierarchical 3x3 branches inside a bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import constant_init
from torch import Tensor, nn

from ..checkpointing import checkpointed
from .deformable import deformable, read_any_format
from .net import StagePlan, init_layer
from .plugins import POSITIONS


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of one net have in common.

    Attributes:
        scales: Number of splits of the channels in a block.
        groups: Groups of the 3x3 convolutions.
        avg_down: Whether shortcuts that shrink the map average it first.
        pool_at_stride_1: Whether the first block of a stage averages its last
            split even if the stage keeps the size of the map.
        conv_cfg: Kind of convolution, as mmcv's ``build_conv_layer`` takes it.
        norm_cfg: Kind of normalisation, as mmcv's ``build_norm_layer`` takes it.
        with_cp: Whether activations are recomputed instead of kept.
    """

    scales: int
    groups: int
    avg_down: bool
    pool_at_stride_1: bool
    conv_cfg: dict[str, Any] | None
    norm_cfg: dict[str, Any]
    with_cp: bool


def make_stage(
    plan: StagePlan, in_channels: int, style: BlockStyle, drop_path: Sequence[float]
) -> nn.Sequential:
    """Build the blocks of one stage.

    Args:
        plan: What the stage looks like.
        in_channels: Channels of its input.
        style: What it shares with the other stages.
        drop_path: Probability of dropping the residual, per block.

    Returns:
        Maps (N, in_channels, H, W) to (N, channels, H / stride, W / stride),
        rounded up.
    """
    if plan.dcn is not None:
        # Only this import registers DCN and DCNv2, and it needs operators that nothing
        # else here does.
        import_module('mmcv.ops')
    first = Bottle2neck(plan, in_channels, style, drop_path[0], is_first=True)
    rest = [Bottle2neck(plan, plan.channels, style, rate) for rate in drop_path[1:]]
    return nn.Sequential(first, *rest)


def make_shortcut(
    in_channels: int, out_channels: int, stride: int, style: BlockStyle
) -> nn.Sequential:
    """Build the 1x1 projection of a shortcut, after an average pool if asked for.

    With ``avg_down`` the convolution and its normalisation stand at 1 and 2, as in
    every published net, whether or not there is anything to pool.
    """
    layers: list[nn.Module] = []
    conv_stride = stride
    if style.avg_down:
        conv_stride = 1
        layers.append(
            nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            if stride > 1
            else nn.Identity()
        )
    layers.append(
        build_conv_layer(
            style.conv_cfg, in_channels, out_channels, 1, stride=conv_stride, bias=False
        )
    )
    layers.append(build_norm_layer(style.norm_cfg, out_channels)[1])
    return nn.Sequential(*layers)


class Bottle2neck(nn.Module):
    """Bottleneck whose 3x3 convolution is a chain of small ones (paper, sec. 3.1).

    The channels after the first 1x1 convolution are split ``scales`` ways. Each
    split but the last goes through its own 3x3 convolution, together with the
    result of the split before it; the last one is passed on. The first block of a
    stage keeps its splits apart and averages the last one, since there the maps
    change size.

    Written from the paper (arXiv 1904.01169). Parameter names are those of the
    authors' class, which mmdet, mmpretrain and timm share.

    Args:
        plan: What the stage of the block looks like.
        in_channels: Channels of the input.
        style: What all blocks share.
        drop_path: Probability of dropping the residual of a sample in training.
        is_first: Whether the block is the first of its stage.
    """

    def __init__(
        self,
        plan: StagePlan,
        in_channels: int,
        style: BlockStyle,
        drop_path: float = 0.0,
        is_first: bool = False,
    ) -> None:
        super().__init__()
        stride = plan.stride if is_first else 1
        inner = plan.width * style.scales
        self.width = plan.width
        self.is_first = is_first
        self.with_cp = style.with_cp
        self.conv1 = build_conv_layer(style.conv_cfg, in_channels, inner, 1, bias=False)
        self.norm1_name = self._add_norm(style, inner, 1)
        self._add_branches(plan, style, stride)
        self.conv3 = build_conv_layer(
            style.conv_cfg, inner, plan.channels, 1, bias=False
        )
        self.norm3_name = self._add_norm(style, plan.channels, 3)
        self.relu = nn.ReLU(inplace=True)
        pooled = is_first and (stride > 1 or style.pool_at_stride_1)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if pooled else None
        self.downsample = (
            make_shortcut(in_channels, plan.channels, stride, style)
            if stride > 1 or in_channels != plan.channels
            else None
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else None
        channels = dict(zip(POSITIONS, (inner, inner, plan.channels), strict=True))
        self.plugin_names: dict[str, list[str]] = {p: [] for p in POSITIONS}
        for plugin in plan.plugins:
            self._add_plugin(plugin, channels[plugin['position']])

    def _add_norm(self, style: BlockStyle, channels: int, postfix: int) -> str:
        name, norm = build_norm_layer(style.norm_cfg, channels, postfix=postfix)
        self.add_module(name, norm)
        return name

    def _add_branches(self, plan: StagePlan, style: BlockStyle, stride: int) -> None:
        dcn = deformable(plan.dcn, stride)
        self.deformable = dcn is not None
        self.convs = nn.ModuleList()
        self.bns = nn.ModuleList()
        for _ in range(style.scales - 1):
            conv = build_conv_layer(
                dcn if dcn is not None else style.conv_cfg,
                plan.width,
                plan.width,
                kernel_size=3,
                stride=stride,
                padding=plan.dilation,
                dilation=plan.dilation,
                groups=style.groups,
                bias=False,
            )
            if self.deformable:
                read_any_format(conv)
            self.convs.append(conv)
            self.bns.append(build_norm_layer(style.norm_cfg, plan.width)[1])

    def _add_plugin(self, plugin: dict[str, Any], channels: int) -> None:
        cfg = dict(plugin['cfg'])
        postfix = cfg.pop('postfix', '')
        name, layer = build_plugin_layer(cfg, postfix=postfix, in_channels=channels)
        self.add_module(name, layer)
        self.plugin_names[plugin['position']].append(name)

    @property
    def norm1(self) -> nn.Module:
        """Normalisation after the first convolution; its name depends on its kind."""
        return getattr(self, self.norm1_name)

    @property
    def norm3(self) -> nn.Module:
        """Normalisation after the last convolution; its name depends on its kind."""
        return getattr(self, self.norm3_name)

    def init_parameters(self, zero_last: bool) -> None:
        """Draw new weights; with ``zero_last`` the block starts as its shortcut."""
        shortcut = self.downsample if self.downsample is not None else ()
        for layer in (self.conv1, self.norm1, self.conv3, self.norm3, *shortcut):
            init_layer(layer)
        for layer in (*self.convs, *self.bns):
            init_layer(layer)
        if zero_last:
            constant_init(self.norm3, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpointed(self, self._forward, x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self._apply_plugins('after_conv1', out)
        out = torch.cat(self._branches(out), dim=1)
        out = self._apply_plugins('after_conv2', out)
        out = self.norm3(self.conv3(out))
        out = self._apply_plugins('after_conv3', out)
        if self.drop_path is not None:
            out = self.drop_path(out)
        shortcut = self.downsample(x) if self.downsample is not None else x
        # A plugin may need its result again in backward.
        out = out + shortcut if self.plugin_names['after_conv3'] else out.add_(shortcut)
        return self.relu(out)

    def _branches(self, x: Tensor) -> list[Tensor]:
        splits = x.split(self.width, dim=1)
        results: list[Tensor] = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns, strict=True)):
            chained = index > 0 and not self.is_first
            part = splits[index] + results[-1] if chained else splits[index]
            results.append(self.relu(norm(conv(part))))
        last = splits[-1]
        results.append(self.pool(last) if self.pool is not None else last)
        return results

    def _apply_plugins(self, position: str, x: Tensor) -> Tensor:
        for name in self.plugin_names[position]:
            x = getattr(self, name)(x)
        return x
