"""From the arguments of Res2Net to its stages, with every mistake named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from .contract import Level, check_frozen_stages
from .res2net_block import POSITIONS, BlockStyle, StagePlan

STAGE_BLOCKS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
STEM_STRIDE = 4
EXPANSION = 4
_DCN_TYPES = ('DCN', 'DCNv2')


def plan_stages(
    stage_blocks: Sequence[int],
    base_width: int,
    base_channels: int,
    groups: int,
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    plugins: Sequence[dict[str, Any]] | None,
) -> list[StagePlan]:
    """Lay out the stages from arguments that :func:`check_arguments` has passed.

    The width of a split is ``base_width`` per group in the first stage and doubles
    with each stage: the paper's floor(planes * base_width / 64).
    """
    count = len(stage_blocks)
    strides = strides if strides is not None else default_strides(count)
    dilations = dilations if dilations is not None else (1,) * count
    deformable = stage_with_dcn if stage_with_dcn is not None else (False,) * count
    return [
        StagePlan(
            blocks=stage_blocks[i],
            width=base_width * 2**i * groups,
            channels=base_channels * 2**i * EXPANSION,
            stride=strides[i],
            dilation=dilations[i],
            dcn=dcn if deformable[i] else None,
            plugins=tuple(
                plugin
                for plugin in plugins or ()
                if plugin.get('stages') is None or plugin['stages'][i]
            ),
        )
        for i in range(count)
    ]


def default_strides(count: int) -> tuple[int, ...]:
    """Return the strides of ``count`` stages: the first one keeps the size."""
    return (1, *(2,) * (count - 1))


def stage_levels(plans: Sequence[StagePlan]) -> list[Level]:
    """Name the output of every stage."""
    strides = accumulate((p.stride for p in plans), int.__mul__, initial=STEM_STRIDE)
    next(strides)
    return [
        Level(index, plan.channels, stride)
        for index, (plan, stride) in enumerate(zip(plans, strides, strict=True))
    ]


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


def resolve_stage_blocks(
    depth: int | None, stage_blocks: Sequence[int] | None, num_stages: int | None
) -> tuple[int, ...]:
    """Return the blocks of every stage, or raise before anything else is checked.

    Raises:
        ValueError: If the three arguments do not name the blocks of a net.
    """
    if stage_blocks is None:
        depth = 50 if depth is None else depth
        if depth not in STAGE_BLOCKS:
            raise ValueError(
                f'depth must be one of {", ".join(map(str, STAGE_BLOCKS))}, got '
                f'{depth!r}: write depth=50, or the blocks of each stage, as in '
                'stage_blocks=(3, 4, 6, 3)'
            )
        blocks: Sequence[int] = STAGE_BLOCKS[depth]
    elif depth is not None:
        raise ValueError(
            f'depth or stage_blocks is given, not both: got depth={depth!r} and '
            f'stage_blocks={stage_blocks!r}: write depth=None'
        )
    elif problems := per_stage('stage_blocks', stage_blocks, None, (3, 4, 6, 3)):
        raise ValueError(problems[0])
    else:
        blocks = stage_blocks
    if num_stages is None:
        return tuple(blocks)
    if type(num_stages) is not int or not 1 <= num_stages <= len(blocks):
        raise ValueError(
            f'num_stages must be from 1 to {len(blocks)}, got {num_stages!r}: leave '
            'it out to have all of them'
        )
    return tuple(blocks[:num_stages])


def check_arguments(
    stages: int,
    style: BlockStyle,
    frozen_stages: int,
    drop_path_rate: float,
    *,
    sizes: Mapping[str, int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    plugins: Sequence[dict[str, Any]] | None,
) -> None:
    """Refuse arguments that cannot be served.

    Args:
        stages: Number of stages.
        style: Holds the arguments of the blocks.
        frozen_stages: As given, like all that follow.
        drop_path_rate: Rate of the last block.
        sizes: Arguments that must be positive integers, by name.
        strides: One per stage, or None.
        dilations: One per stage, or None.
        dcn: Kind of deformable convolution, or None.
        stage_with_dcn: One flag per stage, or None.
        plugins: Extra layers, or None.

    Raises:
        ValueError: Lists all mistakes: what is allowed, what was given, what to
            write.
    """
    problems = [
        f'{name} must be a positive integer, got {value!r}'
        for name, value in {**sizes, 'groups': style.groups}.items()
        if type(value) is not int or value < 1
    ]
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
    try:
        check_frozen_stages(frozen_stages, stages, owner='Res2Net')
    except ValueError as error:
        problems.append(str(error))
    problems += per_stage('strides', strides, stages, default_strides(stages))
    problems += per_stage('dilations', dilations, stages, (1,) * stages)
    problems += _layer_problems('norm_cfg', style.norm_cfg, 'BN')
    problems += _layer_problems('conv_cfg', style.conv_cfg, 'Conv2d')
    problems += _dcn_problems(dcn, stage_with_dcn, stages)
    problems += _plugin_problems(plugins, stages)
    if problems:
        raise ValueError('Res2Net cannot be built:\n- ' + '\n- '.join(problems))


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


def _layer_problems(name: str, cfg: dict[str, Any] | None, example: str) -> list[str]:
    if cfg is None or (isinstance(cfg, dict) and 'type' in cfg):
        return []
    return [
        f"{name} must be a dict with 'type', got {cfg!r}: write "
        f'{name}=dict(type={example!r})'
    ]


def _flags(values: object, stages: int) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == stages
        and all(isinstance(value, bool) for value in values)
    )


def _dcn_problems(
    dcn: dict[str, Any] | None, stage_with_dcn: Sequence[bool] | None, stages: int
) -> list[str]:
    example = (False,) + (True,) * (stages - 1)
    if dcn is None:
        if not isinstance(stage_with_dcn, Sequence) or not any(stage_with_dcn):
            return []
        return [
            f'stage_with_dcn={stage_with_dcn!r} needs a deformable convolution: write '
            "dcn=dict(type='DCNv2', deform_groups=1)"
        ]
    problems = []
    kind = dcn.get('type') if isinstance(dcn, dict) else None
    if not isinstance(kind, type) and kind not in _DCN_TYPES:
        problems.append(
            f'dcn must be a dict whose type is {" or ".join(map(repr, _DCN_TYPES))} or '
            f"a class, got {dcn!r}: write dcn=dict(type='DCNv2', deform_groups=1)"
        )
    if not _flags(stage_with_dcn, stages) or not any(stage_with_dcn or ()):
        problems.append(
            f'with dcn, stage_with_dcn must hold {stages} booleans, one per stage, and '
            f'one of them True, got {stage_with_dcn!r}: write stage_with_dcn={example}'
        )
    return problems


def _plugin_problems(
    plugins: Sequence[dict[str, Any]] | None, stages: int
) -> list[str]:
    if plugins is None:
        return []
    if not isinstance(plugins, Sequence) or isinstance(plugins, str):
        return [f'plugins must be a list of dicts, got {plugins!r}']
    problems = []
    for number, plugin in enumerate(plugins):
        faults = _plugin_faults(plugin, stages)
        if faults:
            problems.append(f'plugins[{number}] {", ".join(faults)}, got {plugin!r}')
    return problems


def _plugin_faults(plugin: object, stages: int) -> list[str]:
    if not isinstance(plugin, dict):
        return ["must be a dict, as in dict(cfg=..., position='after_conv3')"]
    faults = []
    if not isinstance(plugin.get('cfg'), dict) or 'type' not in plugin['cfg']:
        faults.append("needs cfg=dict(type=...), as in dict(type='ContextBlock')")
    if plugin.get('position') not in POSITIONS:
        faults.append(f'needs position=one of {POSITIONS}')
    if plugin.get('stages') is not None and not _flags(plugin['stages'], stages):
        faults.append(f'needs stages=one boolean per stage ({stages})')
    unknown = sorted(set(plugin) - {'cfg', 'position', 'stages'})
    if unknown:
        faults.append(f'does not take {", ".join(unknown)}')
    return faults
