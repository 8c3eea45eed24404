"""Depths of ResNet, what its blocks share, and the check of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arguments import refuse, residual_problems

STAGE_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
EXPANSION = {'basic': 1, 'bottleneck': 4}
_GROUP_WIDTH = 4


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of one net have in common.

    Attributes:
        block: ``'basic'``, two 3x3 convolutions, or ``'bottleneck'``, one between two
            of 1x1.
        groups: Groups of the 3x3 convolutions.
        base_width: Channels of a group in the first stage.
        base_channels: Channels of the first stage before its expansion.
        stride_in_1x1: Whether the first convolution of a bottleneck strides.
        avg_down: Whether shortcuts that shrink the map average it first.
        conv_cfg: Kind of convolution, as mmcv's ``build_conv_layer`` takes it.
        norm_cfg: Kind of normalisation, as mmcv's ``build_norm_layer`` takes it.
    """

    block: str
    groups: int
    base_width: int
    base_channels: int
    stride_in_1x1: bool
    avg_down: bool
    conv_cfg: dict[str, Any] | None
    norm_cfg: dict[str, Any]


def resolve_block(depth: int | None, block: str | None) -> str:
    """Return the kind of block that was asked for, or else that of ``depth``."""
    if block is not None:
        return block
    return 'basic' if depth in (18, 34) else 'bottleneck'


def resolve_base_width(base_width: int | None, groups: int, base_channels: int) -> int:
    """Return the width that was asked for, or the usual one of ResNet or ResNeXt."""
    if base_width is not None:
        return base_width
    return base_channels if groups == 1 else _GROUP_WIDTH


def resolve_frozen_stages(frozen_stages: int | None, freeze_at: int | None) -> int:
    """Turn detectron2's ``freeze_at`` into ``frozen_stages``."""
    if freeze_at is not None:
        return freeze_at - 1
    return -1 if frozen_stages is None else frozen_stages


def check_arguments(
    stages: int,
    style: BlockStyle,
    *,
    depth: int | None,
    frozen_stages: int | None,
    freeze_at: int | None,
    sizes: Mapping[str, int],
    per_stage: Mapping[str, Any],
) -> None:
    """Refuse arguments that cannot be served.

    Args:
        stages: Number of stages.
        style: Holds the arguments of the blocks.
        depth: As given, like all that follow.
        frozen_stages: Stages without training, or None.
        freeze_at: The same in detectron2's counting, or None.
        sizes: Arguments that must be positive integers, by name.
        per_stage: Those that differ by stage, by name.

    Raises:
        ValueError: Lists all mistakes: what is allowed, what was given, what to
            write.
    """
    sizes = {**sizes, 'groups': style.groups, 'base_width': style.base_width}
    problems = residual_problems(
        'ResNet',
        stages,
        -1 if frozen_stages is None else frozen_stages,
        sizes=sizes,
        conv_cfg=style.conv_cfg,
        norm_cfg=style.norm_cfg,
        dcn_lacks=('groups',) if style.groups != 1 else (),
        **per_stage,
    )
    problems += _freeze_at_problems(frozen_stages, freeze_at, stages)
    problems += _block_problems(depth, style.block)
    if style.block == 'basic':
        problems += _basic_problems(style, per_stage)
    elif all(type(size) is int and size > 0 for size in sizes.values()):
        problems += _bottleneck_problems(style, per_stage['dcn'])
    refuse('ResNet', problems)


def _freeze_at_problems(
    frozen_stages: int | None, freeze_at: int | None, stages: int
) -> list[str]:
    if freeze_at is None:
        return []
    if frozen_stages is not None:
        return [
            f'frozen_stages or freeze_at is given, not both: got {frozen_stages!r} and '
            f'{freeze_at!r}; freeze_at=n is frozen_stages=n-1'
        ]
    if type(freeze_at) is int and 0 <= freeze_at <= stages + 1:
        return []
    return [
        f'freeze_at must be an integer from 0 (nothing), 1 (the stem), 2 (the stem and '
        f'the first stage) to {stages + 1} (all of the stages), got {freeze_at!r}'
    ]


def _block_problems(depth: int | None, block: str) -> list[str]:
    if block not in EXPANSION:
        kinds = ' or '.join(map(repr, EXPANSION))
        return [f"block must be {kinds}, got {block!r}: write block='bottleneck'"]
    if depth is not None and block != resolve_block(depth, None):
        return [
            f'depth={depth} has {resolve_block(depth, None)} blocks, got '
            f'block={block!r}: write depth=None, stage_blocks={STAGE_BLOCKS[depth]}'
        ]
    return []


def _basic_problems(style: BlockStyle, per_stage: Mapping[str, Any]) -> list[str]:
    given = {
        'groups': style.groups != 1,
        'base_width': style.groups == 1 and style.base_width != style.base_channels,
        'stride_in_1x1': style.stride_in_1x1,
        'dcn': per_stage['dcn'] is not None,
        'plugins': bool(per_stage['plugins']),
    }
    names = [name for name, is_given in given.items() if is_given]
    if not names:
        return []
    return [
        f'{", ".join(names)} can be given to nets of bottleneck blocks only, this one '
        "has basic blocks: write depth=50, or block='bottleneck' beside stage_blocks"
    ]


def _bottleneck_problems(style: BlockStyle, dcn: dict[str, Any] | None) -> list[str]:
    problems = []
    channels = style.base_channels * EXPANSION['bottleneck']
    if style.groups == 1 and channels % style.base_width:
        problems.append(
            f'base_width must divide {channels}, the channels of the first stage, if '
            f'groups is 1, got {style.base_width}: write base_width=128 for the wide '
            'nets, or leave it out'
        )
    if dcn is not None and style.conv_cfg is not None:
        problems.append(
            'conv_cfg and dcn cannot be combined in a ResNet, got '
            f'conv_cfg={style.conv_cfg!r} and dcn={dcn!r}: write conv_cfg=None'
        )
    return problems
