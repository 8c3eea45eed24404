"""Depths of Res2Net, its drop path rates and the check of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .arguments import refuse, residual_problems
from .res2net_block import BlockStyle

STAGE_BLOCKS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
EXPANSION = 4


def drop_path_rates(
    stage_blocks: Sequence[int], drop_path_rate: float
) -> list[list[float]]:
    """Raise the rate from 0 in the first block to ``drop_path_rate`` in the last.

    Args:
        stage_blocks: Number of blocks per stage.
        drop_path_rate: Probability for the last block of the whole net.

    Returns:
        One list per stage, one rate per block.
    """
    last = max(sum(stage_blocks) - 1, 1)
    rates = iter([drop_path_rate * i / last for i in range(sum(stage_blocks))])
    return [[next(rates) for _ in range(blocks)] for blocks in stage_blocks]


def check_arguments(
    stages: int,
    style: BlockStyle,
    frozen_stages: int,
    drop_path_rate: float,
    *,
    sizes: Mapping[str, int],
    per_stage: Mapping[str, Any],
) -> None:
    """Refuse arguments that cannot be served.

    Args:
        stages: Number of stages.
        style: Holds the arguments of the blocks.
        frozen_stages: As given, like all that follow.
        drop_path_rate: Rate of the last block.
        sizes: Arguments that must be positive integers, by name.
        per_stage: Those that differ by stage, by name.

    Raises:
        ValueError: Lists all mistakes: what is allowed, what was given, what to
            write.
    """
    problems = []
    if type(style.scales) is not int or style.scales < 2:
        problems.append(
            f'scales must be an integer from 2 (a net of one scale is a ResNet), got '
            f'{style.scales!r}: write scales=4'
        )
    if not isinstance(drop_path_rate, (int, float)) or not 0 <= drop_path_rate < 1:
        problems.append(
            f'drop_path_rate must be from 0 to below 1, got {drop_path_rate!r}: '
            'write drop_path_rate=0.1'
        )
    problems += residual_problems(
        'Res2Net',
        stages,
        frozen_stages,
        sizes={**sizes, 'groups': style.groups},
        conv_cfg=style.conv_cfg,
        norm_cfg=style.norm_cfg,
        dcn_lacks=('groups',),
        **per_stage,
    )
    refuse('Res2Net', problems)
