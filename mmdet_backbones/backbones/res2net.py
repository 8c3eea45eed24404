"""Res2Net, written from the paper (arXiv 1904.01169), and its published variants."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn

from ..registry import MODELS
from ..weights.dialect import Dialect
from .contract import IMAGENET, Backbone, select_levels
from .res2net_block import BlockStyle, StagePlan, init_layer, make_stage
from .res2net_plan import (
    check_arguments,
    drop_path_rates,
    plan_stages,
    resolve_stage_blocks,
    stage_levels,
)

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
class Res2Net(Backbone):
    """Res2Net of `arXiv 1904.01169 <https://arxiv.org/abs/1904.01169>`_, sec. 3.

    Argument and parameter names are those of mmdet's class, so detectors that were
    trained with it load. Unlike there, every argument takes effect: the paper's own
    nets (7x7 stem, strided shortcuts) are the default, v1b and v1d are
    ``deep_stem=True, avg_down=True``.

    Levels are the outputs of the stages, 0 to 3, with 256, 512, 1024 and 2048
    channels at strides 4, 8, 16 and 32. Stages that no output needs are not built.

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
        out_indices: Stages to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        deep_stem: Three 3x3 convolutions instead of one of 7x7.
        avg_down: Average pooling instead of striding in the shortcuts.
        pool_at_stride_1: Average the last split in the first block of a stage that
            keeps the size of the map (layer1), as the authors, timm and mmpretrain
            do. mmdet leaves this pool out: False for detectors trained with it.
        frozen_stages: -1 none, 0 the stem, n the stem and the first n stages.
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
        zero_init_residual: Start every block as its shortcut.
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
    preprocess = IMAGENET
    dialects = (
        Dialect(
            'Res2Net v1b of the authors and of timm',
            marker=r'conv1\.6\.',
            rules=((r'^conv1\.(\d)\.', r'stem.\1.'), (r'^bn1\.', 'stem.7.')),
        ),
        Dialect(
            'Res2Net with deep stem of mmpretrain',
            marker=r'stem\.0\.conv\.',
            rules=tuple(
                (rf'^stem\.{i}\.{layer}\.', f'stem.{3 * i + offset}.')
                for i in range(3)
                for offset, layer in enumerate(('conv', 'bn'))
            ),
        ),
    )

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
        frozen_stages: int = -1,
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
        style = BlockStyle(
            scales=scales,
            groups=groups,
            avg_down=avg_down,
            pool_at_stride_1=pool_at_stride_1,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg if norm_cfg is not None else dict(type='BN'),
            with_cp=with_cp,
        )
        per_stage: dict[str, Any] = dict(
            strides=strides,
            dilations=dilations,
            dcn=dcn,
            stage_with_dcn=stage_with_dcn,
            plugins=plugins,
        )
        stem_channels = base_channels if stem_channels is None else stem_channels
        blocks = resolve_stage_blocks(depth, stage_blocks, num_stages)
        check_arguments(
            len(blocks),
            style,
            frozen_stages,
            drop_path_rate,
            sizes=dict(
                base_width=base_width,
                in_channels=in_channels,
                base_channels=base_channels,
                stem_channels=stem_channels,
            ),
            **per_stage,
        )
        plans = plan_stages(blocks, base_width, base_channels, groups, **per_stage)
        levels = select_levels(
            stage_levels(plans), out_indices, out_strides, owner='Res2Net'
        )
        super().__init__(levels, frozen_stages, norm_eval, init_cfg)
        self.deep_stem = deep_stem
        self.zero_init_residual = zero_init_residual
        self._build_stem(in_channels, stem_channels, style)
        rates = drop_path_rates(blocks, drop_path_rate)
        built = list(zip(plans, rates, strict=True))[: levels[-1].index + 1]
        self._build_stages(built, stem_channels, style)
        self.freeze()

    def _build_stem(self, in_channels: int, channels: int, style: BlockStyle) -> None:
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

    def _build_stages(
        self,
        stages: Sequence[tuple[StagePlan, Sequence[float]]],
        in_channels: int,
        style: BlockStyle,
    ) -> None:
        if any(plan.dcn is not None for plan, _ in stages):
            # Only this import registers DCN and DCNv2, and it needs operators that
            # nothing else here does.
            import_module('mmcv.ops')
        self.res_layers: list[str] = []
        for number, (plan, drop_path) in enumerate(stages, start=1):
            stage = make_stage(plan, in_channels, style, drop_path)
            self.add_module(f'layer{number}', stage)
            self.res_layers.append(f'layer{number}')
            in_channels = plan.channels

    def stage_modules(self, stage: int) -> Sequence[nn.Module]:
        """Modules of one stage, stage 0 is the stem; none for a dropped stage."""
        if stage > 0:
            built = stage <= len(self.res_layers)
            return [getattr(self, f'layer{stage}')] if built else []
        if self.deep_stem:
            return [self.stem]
        return [self.conv1, getattr(self, self.norm1_name)]

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
            for name in self.res_layers:
                for block in getattr(self, name):
                    block.init_parameters(zero_last=self.zero_init_residual)
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
