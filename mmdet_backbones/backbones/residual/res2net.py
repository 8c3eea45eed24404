"""Res2Net, written from the paper (arXiv 1904.01169), and its published variants."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import constant_init
from torch import Tensor, nn

from ...levels import FrozenStages
from ...registry import MODELS
from ...weights.names.resnet_vgg import RES2NET
from ..checkpointing import checkpointed
from .arguments import (
    PLUGIN_POSITIONS,
    drop_path_rates,
    rate_problems,
    resolve_stage_blocks,
)
from .net import ResidualNet, StagePlan, deformable, init_layer, read_any_format

STAGE_BLOCKS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
_EXPANSION = 4

_DEEP = dict(deep_stem=True, avg_down=True)

# Constructor arguments of the published nets. The authors call the nets with a deep
# stem and averaging shortcuts v1b, mmdet and PaddleClas call them v1d.
VARIANTS: dict[str, dict[str, Any]] = {
    'res2net50_26w_4s': dict(depth=50),
    'res2net50_26w_6s': dict(depth=50, scales=6),
    'res2net50_26w_8s': dict(depth=50, scales=8),
    'res2net50_48w_2s': dict(depth=50, base_width=48, scales=2),
    'res2net50_14w_8s': dict(depth=50, base_width=14, scales=8),
    'res2net101_26w_4s': dict(depth=101),
    'res2net152_26w_4s': dict(depth=152),
    'res2next50': dict(depth=50, base_width=4, groups=8),
    'res2net50_v1b': dict(depth=50, **_DEEP),
    'res2net101_v1b': dict(depth=101, **_DEEP),
    'res2net152_v1b': dict(depth=152, **_DEEP),
    'res2net50_v1d': dict(depth=50, **_DEEP),
    'res2net101_v1d': dict(depth=101, **_DEEP),
    'res2net152_v1d': dict(depth=152, **_DEEP),
    'res2net200_v1d': dict(depth=200, **_DEEP),
}


@MODELS.register_module()
class Res2Net(ResidualNet):
    """Res2Net of `arXiv 1904.01169 <https://arxiv.org/abs/1904.01169>`_, sec. 3.

    Argument and parameter names are those of mmdet's class, so detectors that were
    trained with it load. Unlike there, every argument takes effect: the paper's own
    nets (7x7 stem, strided shortcuts) are the default, v1b and v1d are
    ``deep_stem=True, avg_down=True``.

    Levels are the outputs of the stages, 0 to 3, with 256, 512, 1024 and 2048
    channels at strides 4, 8, 16 and 32. Stages that no output needs are not built. The
    stem, at stride 2, can be had by ``out_strides`` only.

    Args:
        depth: 50, 101, 152 or 200; 50 if ``stage_blocks`` is left out too.
        scales: Number of splits in a block, from 2.
        base_width: Channels of a split in the first stage, per group.
        groups: Groups of the 3x3 convolutions; 8 for Res2NeXt.
        in_channels: Channels of the image.
        base_channels: A quarter of the channels of the first stage.
        stem_channels: Channels of the stem; ``base_channels`` if left out.
        num_stages: Use the first stages only; all of them if left out.
        stage_blocks: Blocks of each stage, instead of ``depth``.
        strides: Stride of the first block of each stage; 1, then 2.
        dilations: Dilation of the 3x3 convolutions of each stage.
        out_indices: Stages to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        deep_stem: Three 3x3 convolutions instead of one of 7x7.
        avg_down: Average pooling instead of striding in the shortcuts.
        pool_at_stride_1: Average the last split in the first block of a stage that
            keeps the size of the map (layer1), as the authors, timm and mmpretrain
            do. mmdet leaves this pool out: False for detectors trained with it.
        frozen_stages: -1 none, 0 the stem, n the stem and the first n stages,
            ``'all'`` the whole net.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Kind of normalisation, as mmcv takes it; batch normalisation.
        norm_eval: Keep batch normalisation in eval mode while training, the default
            as in mmdet (mmpretrain: False). Right with pretrained weights only.
        dcn: Deformable 3x3 convolutions, ``dict(type='DCN' or 'DCNv2',
            deform_groups=1)``. With ``fallback_on_stride=True`` blocks that stride
            keep ordinary ones.
        stage_with_dcn: Whether each stage uses ``dcn``.
        plugins: As in mmdet, dicts of ``cfg``, ``position`` ('after_conv1',
            'after_conv2' or 'after_conv3') and optionally ``stages``.
        with_cp: Recompute the activations of a block in backward instead of keeping
            them; gradients and running statistics stay the same.
        zero_init_residual: Start every block as its shortcut; not with a ``norm_cfg``
            that does not train, for the blocks could never be more than that.
        drop_path_rate: Probability of dropping a residual in training, rising
            linearly from 0 in the first block to this in the last.
        init_cfg: As in mmengine, see :class:`Backbone`.

    Raises:
        ValueError: If arguments are out of range or do not fit each other; all
            mistakes are listed.
        TypeError: For an unknown argument, ``style`` among them: the 3x3 convolution
            always strides.

    Example:
        >>> backbone = Res2Net(depth=50, out_strides=(8, 16, 32))
        >>> backbone.out_channels
        (512, 1024, 2048)
    """

    variants = VARIANTS
    dialects = RES2NET

    def __init__(
        self,
        depth: int | None = None,
        scales: int = 4,
        base_width: int = 26,
        groups: int = 1,
        in_channels: int = 3,
        base_channels: int = 64,
        stem_channels: int | None = None,
        num_stages: int | None = None,
        stage_blocks: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        deep_stem: bool = False,
        avg_down: bool = False,
        pool_at_stride_1: bool = True,
        frozen_stages: FrozenStages = -1,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = True,
        dcn: dict[str, Any] | None = None,
        stage_with_dcn: Sequence[bool] | None = None,
        plugins: Sequence[dict[str, Any]] | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        blocks = resolve_stage_blocks(STAGE_BLOCKS, depth, stage_blocks, num_stages)
        problems = [*_scale_problems(scales), *rate_problems(drop_path_rate)]
        rates = drop_path_rates(drop_path_rate, sum(blocks))

        def make_stage(plan: StagePlan, inputs: int) -> nn.Sequential:
            if plan.dcn is not None:
                # Only this import registers DCN and DCNv2, and it needs operators that
                # nothing else here does.
                import_module('mmcv.ops')
            return nn.Sequential(
                *(
                    Bottle2neck(
                        plan,
                        plan.channels if number else inputs,
                        scales,
                        pool_at_stride_1,
                        with_cp,
                        drop_path=next(rates),
                        is_first=number == 0,
                    )
                    for number in range(plan.blocks)
                )
            )

        super().__init__(
            blocks,
            make_stage,
            problems,
            expansion=_EXPANSION,
            in_channels=in_channels,
            stem_channels=stem_channels,
            base_channels=base_channels,
            base_width=base_width,
            groups=groups,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            out_strides=out_strides,
            deep_stem=deep_stem,
            avg_down=avg_down,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            dcn=dcn,
            dcn_lacks=('groups',),
            stage_with_dcn=stage_with_dcn,
            plugins=plugins,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
        )

    def _init_block(self, block: Any) -> None:
        block.init_parameters(zero_last=self.zero_init_residual)


def _scale_problems(scales: int) -> list[str]:
    if type(scales) is int and scales >= 2:
        return []
    return [
        f'scales must be an integer from 2 (a net of one scale is a ResNet), got '
        f'{scales!r}: write scales=4'
    ]


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
        scales: Number of splits of the channels.
        pool_at_stride_1: Whether the first block of a stage averages its last
            split even if the stage keeps the size of the map.
        with_cp: Whether activations are recomputed instead of kept.
        drop_path: Probability of dropping the residual of a sample in training.
        is_first: Whether the block is the first of its stage.
    """

    def __init__(
        self,
        plan: StagePlan,
        in_channels: int,
        scales: int,
        pool_at_stride_1: bool,
        with_cp: bool,
        drop_path: float,
        is_first: bool,
    ) -> None:
        super().__init__()
        stride = plan.stride if is_first else 1
        inner = plan.width * scales
        self.width = plan.width
        self.is_first = is_first
        self.with_cp = with_cp
        self.conv1 = build_conv_layer(plan.conv_cfg, in_channels, inner, 1, bias=False)
        self.norm1_name = self._add_norm(plan, inner, 1)
        self._add_branches(plan, scales - 1, stride)
        self.conv3 = build_conv_layer(
            plan.conv_cfg, inner, plan.channels, 1, bias=False
        )
        self.norm3_name = self._add_norm(plan, plan.channels, 3)
        self.relu = nn.ReLU(inplace=True)
        pooled = is_first and (stride > 1 or pool_at_stride_1)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if pooled else None
        self.downsample = (
            _make_shortcut(plan, in_channels, stride)
            if stride > 1 or in_channels != plan.channels
            else None
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else None
        self.plugin_names: dict[str, list[str]] = {p: [] for p in PLUGIN_POSITIONS}
        for plugin in plan.plugins:
            at_end = plugin['position'] == 'after_conv3'
            self._add_plugin(plugin, plan.channels if at_end else inner)

    def _add_norm(self, plan: StagePlan, channels: int, postfix: int) -> str:
        name, norm = build_norm_layer(plan.norm_cfg, channels, postfix=postfix)
        self.add_module(name, norm)
        return name

    def _add_branches(self, plan: StagePlan, count: int, stride: int) -> None:
        dcn = deformable(plan.dcn, stride)
        self.deformable = dcn is not None
        self.convs = nn.ModuleList()
        self.bns = nn.ModuleList()
        for _ in range(count):
            conv = build_conv_layer(
                dcn if dcn is not None else plan.conv_cfg,
                plan.width,
                plan.width,
                kernel_size=3,
                stride=stride,
                padding=plan.dilation,
                dilation=plan.dilation,
                groups=plan.groups,
                bias=False,
            )
            if self.deformable:
                read_any_format(conv)
            self.convs.append(conv)
            self.bns.append(build_norm_layer(plan.norm_cfg, plan.width)[1])

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


def _make_shortcut(plan: StagePlan, in_channels: int, stride: int) -> nn.Sequential:
    """Build the 1x1 projection of a shortcut, after an average pool if asked for.

    With ``avg_down`` the convolution and its normalisation stand at 1 and 2, as in
    every published net, whether or not there is anything to pool.
    """
    layers: list[nn.Module] = []
    if plan.avg_down:
        layers.append(
            nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            if stride > 1
            else nn.Identity()
        )
        stride = 1
    layers.append(
        build_conv_layer(
            plan.conv_cfg, in_channels, plan.channels, 1, stride=stride, bias=False
        )
    )
    layers.append(build_norm_layer(plan.norm_cfg, plan.channels)[1])
    return nn.Sequential(*layers)
