"""What the arguments of residual nets may be, with every mistake named at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...levels import check_frozen_stages
from ..frozen_norm import FROZEN_BN, FrozenBN
from .deformable import dcn_problems
from .plugins import plugin_problems


def refuse(owner: str, problems: Sequence[str]) -> None:
    """Raise one ``ValueError`` that lists all problems, if there are any."""
    if problems:
        raise ValueError(f'{owner} cannot be built:\n- ' + '\n- '.join(problems))


def resolve_stage_blocks(
    table: Mapping[int, tuple[int, ...]],
    depth: int | None,
    stage_blocks: Sequence[int] | None,
    num_stages: int | None,
) -> tuple[int, ...]:
    """Return the blocks of every stage, or raise before anything else is checked.

    Args:
        table: Blocks of every stage, by depth.
        depth: A key of ``table``; 50 if ``stage_blocks`` is left out too.
        stage_blocks: Blocks of every stage. Together with ``depth`` they begin with
            its blocks and may go on with those of a fifth stage.
        num_stages: How many of the stages there are; all of them if left out.

    Raises:
        ValueError: If the arguments do not name the blocks of a net.
    """
    if depth is None and stage_blocks is None:
        depth = 50
    if depth is not None and depth not in table:
        raise ValueError(
            f'depth must be one of {", ".join(map(str, table))}, got {depth!r}: write '
            'depth=50, or the blocks of each stage, as in stage_blocks=(3, 4, 6, 3)'
        )
    if problems := per_stage('stage_blocks', stage_blocks, None, (3, 4, 6, 3)):
        raise ValueError(problems[0])
    blocks = tuple(stage_blocks) if stage_blocks is not None else table[depth or 50]
    if depth is not None and blocks[: len(table[depth])] != table[depth][: len(blocks)]:
        raise ValueError(
            'depth or stage_blocks is given, not both, unless stage_blocks begins with '
            f'{table[depth]}, the blocks of depth={depth}: got stage_blocks={blocks}: '
            'write depth=None'
        )
    if num_stages is None:
        return blocks
    if type(num_stages) is not int or not 1 <= num_stages <= len(blocks):
        raise ValueError(
            f'num_stages must be from 1 to {len(blocks)}, got {num_stages!r}: leave it '
            f'out to have all of them, or name the blocks of each stage, as in '
            f'stage_blocks={(*blocks, 2)}'
        )
    return blocks[:num_stages]


def residual_problems(
    owner: str,
    stages: int,
    frozen_stages: int,
    *,
    sizes: Mapping[str, object],
    conv_cfg: dict[str, Any] | None,
    norm_cfg: dict[str, Any],
    dcn_lacks: Collection[str],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    plugins: Sequence[dict[str, Any]] | None,
) -> list[str]:
    """Name what is wrong with the arguments that all residual nets take.

    Args:
        owner: Name of the net.
        stages: Number of its stages.
        frozen_stages: As given, like all that follow but ``dcn_lacks``.
        sizes: Arguments that must be positive integers, by name.
        conv_cfg: Kind of convolution, or None.
        norm_cfg: Kind of normalisation.
        dcn_lacks: Further arguments that the net itself gives to a deformable
            convolution.
        strides: One per stage, or None.
        dilations: One per stage, or None.
        dcn: Kind of deformable convolution, or None.
        stage_with_dcn: One flag per stage, or None.
        plugins: Extra layers, or None.

    Returns:
        One sentence per mistake: what is allowed, what was given, what to write.
    """
    problems = [
        f'{name} must be a positive integer, got {value!r}'
        for name, value in sizes.items()
        if type(value) is not int or value < 1
    ]
    try:
        check_frozen_stages(frozen_stages, stages, owner)
    except ValueError as error:
        problems.append(str(error))
    problems += per_stage('strides', strides, stages, default_strides(stages))
    problems += per_stage('dilations', dilations, stages, (1,) * stages)
    problems += _layer_problems('norm_cfg', norm_cfg, 'BN')
    problems += _layer_problems('conv_cfg', conv_cfg, 'Conv2d')
    problems += _frozen_norm_problems(norm_cfg)
    problems += dcn_problems(dcn, stage_with_dcn, stages, dcn_lacks)
    problems += plugin_problems(plugins, stages)
    return problems


def default_strides(count: int) -> tuple[int, ...]:
    """Return the strides of ``count`` stages: the first one keeps the size."""
    return (1, *(2,) * (count - 1))


def per_stage(
    name: str, values: Sequence[int] | None, stages: int | None, example: Sequence[int]
) -> list[str]:
    """Name what is wrong with one positive integer per stage; None is fine."""
    if values is None or (
        isinstance(values, Sequence)
        and len(values) in (range(1, 100) if stages is None else (stages,))
        and all(type(value) is int and value > 0 for value in values)
    ):
        return []
    number = 'at least one' if stages is None else stages
    return [
        f'{name} must hold {number} positive integers, one per stage, got '
        f'{values!r}: write {name}={tuple(example)}'
    ]


def _layer_problems(name: str, cfg: object, example: str) -> list[str]:
    if cfg is None or (isinstance(cfg, dict) and 'type' in cfg):
        return []
    return [
        f"{name} must be a dict with 'type', got {cfg!r}: write "
        f'{name}=dict(type={example!r})'
    ]


def _frozen_norm_problems(norm_cfg: Any) -> list[str]:
    kind = norm_cfg.get('type') if isinstance(norm_cfg, dict) else None
    if kind == 'FrozenBN':
        return [
            "norm_cfg: 'FrozenBN' is registered in this package, write "
            f'norm_cfg=dict(type={FROZEN_BN!r})'
        ]
    if kind not in (FrozenBN, FROZEN_BN) or not norm_cfg.get('requires_grad', False):
        return []
    return [
        'norm_cfg: FrozenBN never trains, got requires_grad=True (inherited from a '
        f'base config?): write norm_cfg=dict(_delete_=True, type={FROZEN_BN!r})'
    ]
