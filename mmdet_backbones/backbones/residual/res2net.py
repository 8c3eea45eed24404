"""Res2Net, written from the paper (arXiv 1904.01169), and its published variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...registry import MODELS
from ...weights.names.resnet import DEEP_STEM_OF_MMPRETRAIN, DEEP_STEM_OF_TIMM
from .arguments import resolve_stage_blocks
from .net import ResidualNet, plan_stages
from .res2net_block import BlockStyle, make_stage
from .res2net_plan import EXPANSION, STAGE_BLOCKS, check_arguments, drop_path_rates

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
    dialects = (DEEP_STEM_OF_TIMM, DEEP_STEM_OF_MMPRETRAIN)

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
        blocks = resolve_stage_blocks(STAGE_BLOCKS, depth, stage_blocks, num_stages)
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
            per_stage=per_stage,
        )
        plans = plan_stages(
            blocks, base_width * groups, base_channels * EXPANSION, **per_stage
        )
        rates = iter(drop_path_rates(blocks, drop_path_rate))
        super().__init__(
            plans,
            style,
            lambda plan, channels: make_stage(plan, channels, style, next(rates)),
            out_indices=out_indices,
            out_strides=out_strides,
            in_channels=in_channels,
            stem_channels=stem_channels,
            deep_stem=deep_stem,
            zero_init_residual=zero_init_residual,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            init_cfg=init_cfg,
        )

    def _init_block(self, block: Any) -> None:
        block.init_parameters(zero_last=self.zero_init_residual)
