"""What ResNet and Res2Net share: a stem, then stages of residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import constant_init, kaiming_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...levels import IMAGENET, FrozenStages, Level, select_levels
from ..contract import Backbone
from ..frozen_norm import norm_trains
from .arguments import (
    dcn_problems,
    frozen_problems,
    layer_problems,
    plugin_patterns,
    plugin_problems,
    plugins_of_stage,
    refuse,
    size_problems,
    stage_problems,
)

STEM_STRIDE = 4
# Of the stem, which mmdet does not count: it is asked for by stride.
_STEM_INDEX = -1


@dataclass(frozen=True)
class StagePlan:
    """One stage of a net.

    Attributes:
        blocks: Number of blocks.
        width: Channels of a 3x3 convolution; of one split in a Res2Net.
        channels: Output channels.
        stride: Stride of the first block.
        dilation: Dilation of all 3x3 convolutions.
        groups: Groups of all 3x3 convolutions.
        avg_down: Whether shortcuts that shrink the map average it first.
        conv_cfg: Kind of convolution, as mmcv's ``build_conv_layer`` takes it.
        norm_cfg: Kind of normalisation, as mmcv's ``build_norm_layer`` takes it.
        dcn: Deformable convolution instead of the 3x3 ones, or None.
        plugins: Extra layers of every block, entries of mmdet's ``plugins``.
    """

    blocks: int
    width: int
    channels: int
    stride: int
    dilation: int
    groups: int
    avg_down: bool
    conv_cfg: dict[str, Any] | None
    norm_cfg: dict[str, Any]
    dcn: dict[str, Any] | None
    plugins: tuple[dict[str, Any], ...]


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


def deformable(dcn: dict[str, Any] | None, stride: int) -> dict[str, Any] | None:
    """Return the deformable convolution of one block, a dict of its own.

    Args:
        dcn: That of the stage, or None. ``fallback_on_stride=True`` in it leaves
            blocks that stride their ordinary convolution.
        stride: Of the block.
    """
    if dcn is None or (stride > 1 and dcn.get('fallback_on_stride', False)):
        return None
    return {key: value for key, value in dcn.items() if key != 'fallback_on_stride'}


def read_any_format(conv: Any) -> None:
    """Let a deformable convolution of mmcv take maps of any memory format.

    Compiled mmcv reads the memory of the map, the offsets and the weight as dense NCHW
    whatever it is: channels-last maps give wrong values (DCNv2) or an error (DCN).
    """
    conv.register_forward_pre_hook(_dense_inputs)
    if hasattr(conv, 'conv_offset'):
        conv.conv_offset.register_forward_hook(_dense_output)


def _dense_inputs(conv: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    weight = getattr(conv, 'weight', None)
    if weight is not None and not weight.is_contiguous():
        weight.data = weight.data.contiguous()
    return inputs[0].contiguous(), *inputs[1:]


def _dense_output(conv: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.contiguous()


class ResidualNet(Backbone):
    """A stem and any number of stages; level n is the output of stage n + 1.

    The stem is level -1, which only ``out_strides`` chooses.

    Stages above the deepest level are not built. A family says in :meth:`_init_block`
    how a block is initialised. Arguments are those of :class:`ResNet` as they were
    given, but for these:

    Args:
        stage_blocks: Blocks of every stage.
        make_stage: Builds the blocks of a stage from its plan and the channels of its
            input; called shallow to deep.
        problems: What is wrong with the arguments that only the family has.
        expansion: Output channels of a stage for each of its channels inside.
        base_width: Channels of a 3x3 convolution in the first stage, per group.
        dcn_lacks: Further arguments that the net itself gives to a deformable
            convolution.

    Raises:
        ValueError: Lists all mistakes: what is allowed, what was given, what to
            write.
    """

    preprocess = IMAGENET

    def __init__(
        self,
        stage_blocks: Sequence[int],
        make_stage: Callable[[StagePlan, int], nn.Sequential],
        problems: Sequence[str],
        *,
        expansion: int,
        in_channels: int,
        stem_channels: int | None,
        base_channels: int,
        base_width: int,
        groups: int,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        out_indices: Sequence[int] | None,
        out_strides: Sequence[int] | None,
        deep_stem: bool,
        avg_down: bool,
        frozen_stages: FrozenStages,
        conv_cfg: dict[str, Any] | None,
        norm_cfg: dict[str, Any] | None,
        norm_eval: bool,
        dcn: dict[str, Any] | None,
        dcn_lacks: Collection[str],
        stage_with_dcn: Sequence[bool] | None,
        plugins: Sequence[dict[str, Any]] | None,
        zero_init_residual: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        owner, count = type(self).__name__, len(stage_blocks)
        usual_strides = (1, *(2,) * (count - 1))
        strides = usual_strides if strides is None else strides
        dilations = (1,) * count if dilations is None else dilations
        stem_channels = base_channels if stem_channels is None else stem_channels
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        refuse(
            owner,
            *size_problems(
                in_channels=in_channels,
                stem_channels=stem_channels,
                base_channels=base_channels,
                base_width=base_width,
                groups=groups,
            ),
            *frozen_problems(frozen_stages, count, owner),
            *stage_problems('strides', strides, count, usual_strides),
            *stage_problems('dilations', dilations, count, (1,) * count),
            *layer_problems(norm_cfg, conv_cfg),
            *dcn_problems(dcn, stage_with_dcn, count, dcn_lacks),
            *plugin_problems(plugins, count),
            *problems,
        )
        plans = [
            StagePlan(
                blocks=blocks,
                width=base_width * groups * 2**i,
                channels=base_channels * expansion * 2**i,
                stride=strides[i],
                dilation=dilations[i],
                groups=groups,
                avg_down=avg_down,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                dcn=dcn if dcn and stage_with_dcn and stage_with_dcn[i] else None,
                plugins=plugins_of_stage(plugins, i),
            )
            for i, blocks in enumerate(stage_blocks)
        ]
        available = stage_levels(plans)
        if out_strides is not None:
            stem = Level(_STEM_INDEX, stem_channels, STEM_STRIDE // 2)
            available = [stem, *available]
        levels = select_levels(available, out_indices, out_strides, owner=owner)
        super().__init__(levels, frozen_stages, norm_eval, init_cfg)
        self.additions = ('*.conv_offset.*', *plugin_patterns(plugins))
        self.deep_stem = deep_stem
        self.stem_channels = stem_channels
        # A scale that never trains could not leave zero.
        self.zero_init_residual = zero_init_residual and norm_trains(norm_cfg)
        self._build_stem(in_channels, stem_channels, conv_cfg, norm_cfg)
        self.res_layers: list[str] = []
        inputs = stem_channels
        for number, plan in enumerate(plans[: levels[-1].index + 1], start=1):
            self.add_module(f'layer{number}', make_stage(plan, inputs))
            self.res_layers.append(f'layer{number}')
            inputs = plan.channels
        self.freeze()

    def _build_stem(
        self,
        in_channels: int,
        channels: int,
        conv_cfg: dict[str, Any] | None,
        norm_cfg: dict[str, Any],
    ) -> None:
        def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
            return build_conv_layer(
                conv_cfg,
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
            self.norm1_name, norm = build_norm_layer(norm_cfg, channels, postfix=1)
            self.add_module(self.norm1_name, norm)
            self.relu = nn.ReLU(inplace=True)
            return
        half = max(channels // 2, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in (in_channels, half), (half, half), (half, channels):
            layers.append(conv(inputs, outputs, kernel=3, stride=1 if layers else 2))
            layers.append(build_norm_layer(norm_cfg, outputs)[1])
            layers.append(nn.ReLU(inplace=True))
        self.stem = nn.Sequential(*layers)

    def stage_modules(self, stage: int) -> Sequence[nn.Module]:
        """Modules of one stage, stage 0 is the stem; none for a dropped stage."""
        if stage > 0:
            built = stage <= len(self.res_layers)
            return [getattr(self, f'layer{stage}')] if built else []
        if self.deep_stem:
            return [self.stem]
        return [self.conv1, self.norm1]

    @property
    def norm1(self) -> nn.Module:
        """Normalisation of the stem; its name depends on its kind."""
        return getattr(self, self.norm1_name)

    def blocks(self) -> list[Any]:
        """All residual blocks, shallow to deep."""
        return [block for name in self.res_layers for block in getattr(self, name)]

    def _init_block(self, block: Any) -> None:
        raise NotImplementedError

    def draw_weights(self) -> None:
        """Draw the values that mmdet's ResNet starts from.

        Kaiming for convolutions, one and zero for normalisation, offsets of zero for
        deformable convolutions.
        """
        for part in self.stage_modules(0):
            for layer in part.modules():
                init_layer(layer)
        for block in self.blocks():
            self._init_block(block)

    def _forward_stem(self, x: Tensor) -> Tensor:
        if self.deep_stem:
            return self.stem(x)
        return self.relu(self.norm1(self.conv1(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H / stride, W / stride) per level.

        Sizes are rounded up; the memory format of ``x`` is kept.
        """
        wanted = self.out_indices
        x = self._forward_stem(x)
        outputs = [x] if _STEM_INDEX in wanted else []
        x = self.maxpool(x)
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in wanted:
                outputs.append(x)
        return tuple(outputs)
