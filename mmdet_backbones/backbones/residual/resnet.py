"""ResNet, ResNeXt and wide ResNet, and their published variants."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch import nn

from ...levels import FrozenStages
from ...registry import MODELS
from ...weights.names.resnet_vgg import RESNET
from ..checkpointing import checkpoint_blocks
from .arguments import (
    drop_path_rates,
    is_positive,
    rate_problems,
    resolve_stage_blocks,
)
from .net import ResidualNet, StagePlan

STAGE_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_KINDS = ('basic', 'bottleneck')
_BASIC_DEPTHS = (18, 34)
_EXPANSION = 4
_GROUP_WIDTH = 4
_DEEP = dict(deep_stem=True, avg_down=True)

# Constructor arguments of the published nets. timm's `d` is mmdet's v1d.
VARIANTS: dict[str, dict[str, Any]] = {
    'resnet18': dict(depth=18),
    'resnet34': dict(depth=34),
    'resnet50': dict(depth=50),
    'resnet101': dict(depth=101),
    'resnet152': dict(depth=152),
    'resnet50_d': dict(depth=50, **_DEEP),
    'resnet101_d': dict(depth=101, **_DEEP),
    'resnet50_caffe': dict(depth=50, stride_in_1x1=True),
    'resnet101_caffe': dict(depth=101, stride_in_1x1=True),
    'resnext50_32x4d': dict(depth=50, groups=32, base_width=4),
    'resnext101_32x4d': dict(depth=101, groups=32, base_width=4),
    'resnext101_64x4d': dict(depth=101, groups=64, base_width=4),
    'wide_resnet50_2': dict(depth=50, base_width=128),
    'wide_resnet101_2': dict(depth=101, base_width=128),
}


@MODELS.register_module()
class ResNet(ResidualNet):
    """ResNet of `arXiv 1512.03385 <https://arxiv.org/abs/1512.03385>`_, sec. 3.3.

    Also ResNet-D (arXiv 1812.01187, sec. 4.2: ``deep_stem``, ``avg_down``), ResNeXt
    (arXiv 1611.05431: ``groups``) and wide ResNet (``base_width``). It is made of
    mmdet's blocks; argument and parameter names are those of mmdet's ResNet and
    ResNeXt, so detectors that were trained with them load. ``norm_eval`` layers and
    frozen stages behave as there.

    Levels are the outputs of the stages, 0 to 3, with 256, 512, 1024 and 2048
    channels (64, 128, 256 and 512 for depth 18 and 34) at strides 4, 8, 16 and 32.
    Stages that no output needs are not built. The stem, at stride 2, can be had by
    ``out_strides`` only.

    ``preprocess`` is right for the weights of torchvision, timm and mmpretrain. Those
    of ``stride_in_1x1=True`` nets (``resnet50_caffe``) usually come from Caffe: BGR,
    mean (103.53, 116.28, 123.675), std (1, 1, 1).

    Args:
        depth: 18, 34, 50, 101 or 152; 50 if ``stage_blocks`` is left out too.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem; ``base_channels`` if left out.
        base_channels: Channels of the first stage before the expansion of its blocks.
        num_stages: Stages there are; all of them if left out.
        stage_blocks: Blocks per stage, at least one stage. With ``depth`` too it
            begins with the blocks of that depth: ``depth=50, stage_blocks=(3, 4, 6,
            3, 3)`` adds a fifth stage of stride 64 and 4096 channels.
        block: ``'bottleneck'`` or ``'basic'`` for nets without depth; bottleneck if
            left out.
        strides: Stride of the first block of each stage.
        dilations: Dilation of the 3x3 convolutions of each stage, in basic blocks of
            the first one. DC5 is ``strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)``.
        out_indices: Stages to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        stride_in_1x1: Stride in the first convolution of a bottleneck instead of the
            3x3 one; ``style='caffe'`` of mmdet.
        deep_stem: Three 3x3 convolutions instead of one of 7x7.
        avg_down: Average pooling instead of striding in the shortcuts.
        groups: Groups of the 3x3 convolutions; 32 or 64 for ResNeXt.
        base_width: Channels of a group in the first stage. Left out, 4 for ResNeXt,
            ``base_channels`` otherwise.
        frozen_stages: -1 none, 0 the stem, n the stem and the first n stages,
            ``'all'`` the whole net.
        freeze_at: The same as detectron2 counts: 0 nothing, 1 the stem, 2 the stem
            and the first stage.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Kind of normalisation, as mmcv takes it; batch normalisation.
            ``dict(type='mmdet_backbones.FrozenBN')`` has nothing to train at all.
        norm_eval: Keep batch normalisation in eval mode while training, as mmdet
            does. Right with pretrained weights only.
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
        TypeError: For an unknown argument, ``style`` among them.

    Example:
        >>> backbone = ResNet(depth=50, out_strides=(8, 16, 32), freeze_at=2)
        >>> backbone.out_channels
        (512, 1024, 2048)
    """

    variants = VARIANTS
    dialects = RESNET

    def __init__(
        self,
        depth: int | None = None,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int | None = None,
        stage_blocks: Sequence[int] | None = None,
        block: str | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        stride_in_1x1: bool = False,
        deep_stem: bool = False,
        avg_down: bool = False,
        groups: int = 1,
        base_width: int | None = None,
        frozen_stages: FrozenStages | None = None,
        freeze_at: int | None = None,
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
        if block is None:
            block = 'basic' if depth in _BASIC_DEPTHS else 'bottleneck'
        if base_width is None:
            base_width = base_channels if groups == 1 else _GROUP_WIDTH
        problems = _freeze_at_problems(frozen_stages, freeze_at, len(blocks))
        if freeze_at is not None and not problems:
            frozen_stages = freeze_at - 1
        problems += [*_block_problems(block, depth), *rate_problems(drop_path_rate)]
        if block == 'basic':
            problems += _basic_problems(
                groups=groups != 1,
                base_width=groups == 1 and base_width != base_channels,
                stride_in_1x1=stride_in_1x1,
                dcn=dcn is not None,
                plugins=bool(plugins),
            )
        else:
            problems += _width_problems(base_width, groups, base_channels)
            problems += _conv_problems(conv_cfg, dcn)

        rates = drop_path_rates(drop_path_rate, sum(blocks))

        def make_stage(plan: StagePlan, inputs: int) -> nn.Sequential:
            # Importing all of mmdet's models takes seconds.
            from .resnet_block import BlockMaker

            # The stage keeps what makes it, and a generator cannot be copied.
            own = iter(tuple(islice(rates, plan.blocks)))
            return BlockMaker(
                plan, block, base_width, base_channels, stride_in_1x1, own
            ).make_stage(inputs)

        super().__init__(
            blocks,
            make_stage,
            problems,
            expansion=1 if block == 'basic' else _EXPANSION,
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
            frozen_stages=-1 if frozen_stages is None else frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            dcn=dcn,
            dcn_lacks=('groups',) if groups != 1 else (),
            stage_with_dcn=stage_with_dcn,
            plugins=plugins,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
        )
        if with_cp:
            checkpoint_blocks(self.blocks())

    def _init_block(self, block: Any) -> None:
        from .resnet_block import init_block

        init_block(block, zero_last=self.zero_init_residual)


def _freeze_at_problems(
    frozen_stages: FrozenStages | None, freeze_at: int | None, stages: int
) -> list[str]:
    if freeze_at is None:
        return []
    if frozen_stages is not None:
        return [
            f'frozen_stages or freeze_at is given, not both: got {frozen_stages!r} and '
            f'{freeze_at!r}; freeze_at=n is frozen_stages=n-1: write freeze_at=None'
        ]
    if type(freeze_at) is int and 0 <= freeze_at <= stages + 1:
        return []
    return [
        f'freeze_at must be an integer from 0 (nothing), 1 (the stem), 2 (the stem and '
        f'the first stage) to {stages + 1} (all of the stages), got {freeze_at!r}'
    ]


def _block_problems(block: str, depth: int | None) -> list[str]:
    if block not in _KINDS:
        kinds = ' or '.join(map(repr, _KINDS))
        return [f"block must be {kinds}, got {block!r}: write block='bottleneck'"]
    usual = 'basic' if depth in _BASIC_DEPTHS else 'bottleneck'
    if depth is None or block == usual:
        return []
    return [
        f'depth={depth} has {usual} blocks, got block={block!r}: write depth=None, '
        f'stage_blocks={STAGE_BLOCKS[depth]}'
    ]


def _basic_problems(**given: bool) -> list[str]:
    names = [name for name, is_given in given.items() if is_given]
    if not names:
        return []
    return [
        f'{", ".join(names)} can be given to nets of bottleneck blocks only, this one '
        "has basic blocks: write depth=50, or block='bottleneck' beside stage_blocks"
    ]


def _width_problems(base_width: int, groups: int, base_channels: int) -> list[str]:
    if not all(map(is_positive, (base_width, groups, base_channels))):
        return []
    channels = base_channels * _EXPANSION
    if groups > 1 or channels % base_width == 0:
        return []
    return [
        f'base_width must divide {channels}, the channels of the first stage, if '
        f'groups is 1, got {base_width}: write base_width=128 for the wide nets, or '
        'leave it out'
    ]


def _conv_problems(
    conv_cfg: dict[str, Any] | None, dcn: dict[str, Any] | None
) -> list[str]:
    if conv_cfg is None or dcn is None:
        return []
    return [
        'conv_cfg and dcn cannot be combined in a ResNet, got '
        f'conv_cfg={conv_cfg!r} and dcn={dcn!r}: write conv_cfg=None'
    ]
