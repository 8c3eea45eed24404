"""What the arguments of residual nets may be, with every mistake named at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mmcv.cnn.bricks.plugin import infer_abbr
from mmengine.registry import MODELS

from ...levels import FrozenStages, check_frozen_stages
from ..frozen_norm import FROZEN_BN, FrozenBN

PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
_DCN_TYPES = ('DCN', 'DCNv2')
# What a block decides itself for its 3x3 convolution.
_CONV_ARGUMENTS = (
    'in_channels',
    'out_channels',
    'kernel_size',
    'stride',
    'padding',
    'dilation',
    'bias',
)


def refuse(owner: str, *problems: str) -> None:
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
    if problems := stage_problems('stage_blocks', stage_blocks, None, (3, 4, 6, 3)):
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


def rate_problems(drop_path_rate: object) -> list[str]:
    """Name what is wrong with the rate of stochastic depth."""
    if isinstance(drop_path_rate, (int, float)) and 0 <= drop_path_rate < 1:
        return []
    return [
        f'drop_path_rate must be from 0 to below 1, got {drop_path_rate!r}: write '
        'drop_path_rate=0.1'
    ]


def drop_path_rates(largest: float, blocks: int) -> Iterator[float]:
    """Rates of all blocks, rising linearly from 0 in the first to the largest."""
    last = max(blocks - 1, 1)
    return (largest * number / last for number in range(blocks))


def is_positive(value: object) -> bool:
    """Tell whether ``value`` is an integer above 0."""
    return type(value) is int and value > 0


def size_problems(**sizes: object) -> list[str]:
    """Name the arguments that are no positive integers."""
    return [
        f'{name} must be a positive integer, got {value!r}'
        for name, value in sizes.items()
        if not is_positive(value)
    ]


def frozen_problems(frozen_stages: FrozenStages, stages: int, owner: str) -> list[str]:
    """Name what is wrong with ``frozen_stages`` for a net of so many stages."""
    try:
        check_frozen_stages(frozen_stages, stages, owner)
    except ValueError as error:
        return [str(error)]
    return []


def stage_problems(
    name: str, values: Sequence[int] | None, stages: int | None, example: Sequence[int]
) -> list[str]:
    """Name what is wrong with one positive integer per stage; None is fine."""
    if values is None or (
        isinstance(values, Sequence)
        and len(values) in (range(1, 100) if stages is None else (stages,))
        and all(map(is_positive, values))
    ):
        return []
    number = 'at least one' if stages is None else stages
    return [
        f'{name} must hold {number} positive integers, one per stage, got '
        f'{values!r}: write {name}={tuple(example)}'
    ]


def layer_problems(norm_cfg: Any, conv_cfg: object) -> list[str]:
    """Name what is wrong with the kinds of layers."""
    problems = [
        f"{name} must be a dict with 'type', got {cfg!r}: write "
        f'{name}=dict(type={example!r})'
        for name, cfg, example in (
            ('norm_cfg', norm_cfg, 'BN'),
            ('conv_cfg', conv_cfg, 'Conv2d'),
        )
        if cfg is not None and not (isinstance(cfg, dict) and 'type' in cfg)
    ]
    kind = norm_cfg.get('type') if isinstance(norm_cfg, dict) else None
    if kind == 'FrozenBN':
        problems.append(
            "norm_cfg: 'FrozenBN' is registered in this package, write "
            f'norm_cfg=dict(type={FROZEN_BN!r})'
        )
    elif kind in (FrozenBN, FROZEN_BN) and norm_cfg.get('requires_grad', False):
        problems.append(
            'norm_cfg: FrozenBN never trains, got requires_grad=True (inherited from a '
            f'base config?): write norm_cfg=dict(_delete_=True, type={FROZEN_BN!r})'
        )
    return problems


def _is_flags(values: object, stages: int) -> bool:
    """Tell whether ``values`` holds one boolean per stage."""
    return (
        isinstance(values, Sequence)
        and len(values) == stages
        and all(isinstance(value, bool) for value in values)
    )


def dcn_problems(
    dcn: dict[str, Any] | None,
    stage_with_dcn: Sequence[bool] | None,
    stages: int,
    lacks: Collection[str],
) -> list[str]:
    """Name what is wrong with the deformable convolutions that were asked for.

    Args:
        dcn: Their kind, as given, or None.
        stage_with_dcn: One flag per stage, or None.
        stages: Number of stages.
        lacks: Arguments that the net itself gives to them, besides those of every
            3x3 convolution of a block.
    """
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
    given = dcn if isinstance(dcn, dict) else {}
    taken = [key for key in (*_CONV_ARGUMENTS, *lacks) if key in given]
    if taken:
        problems.append(
            f'dcn does not take {", ".join(taken)}, which the net decides, got {dcn!r}'
        )
    if not _is_flags(stage_with_dcn, stages) or not any(stage_with_dcn or ()):
        problems.append(
            f'with dcn, stage_with_dcn must hold {stages} booleans, one per stage, and '
            f'one of them True, got {stage_with_dcn!r}: write stage_with_dcn={example}'
        )
    return problems


def plugins_of_stage(
    plugins: Sequence[dict[str, Any]] | None, stage: int
) -> tuple[dict[str, Any], ...]:
    """Choose the plugins of one stage, counted from 0."""
    return tuple(
        plugin
        for plugin in plugins or ()
        if plugin.get('stages') is None or plugin['stages'][stage]
    )


def plugin_problems(plugins: Sequence[dict[str, Any]] | None, stages: int) -> list[str]:
    """Name what is wrong with ``plugins`` for a net of so many stages."""
    if plugins is None:
        return []
    if not isinstance(plugins, Sequence) or isinstance(plugins, str):
        return [f'plugins must be a list of dicts, got {plugins!r}']
    problems = []
    for number, plugin in enumerate(plugins):
        faults = _plugin_faults(plugin, stages)
        if faults:
            problems.append(f'plugins[{number}] {", ".join(faults)}, got {plugin!r}')
    return problems or _double_names(plugins, stages)


def _plugin_faults(plugin: object, stages: int) -> list[str]:
    if not isinstance(plugin, dict):
        return ["must be a dict, as in dict(cfg=..., position='after_conv3')"]
    faults = []
    if not isinstance(plugin.get('cfg'), dict) or 'type' not in plugin['cfg']:
        faults.append("needs cfg=dict(type=...), as in dict(type='ContextBlock')")
    elif _layer_class(plugin['cfg']['type']) is None:
        faults.append(f'names {plugin["cfg"]["type"]!r}, which is in no registry')
    if plugin.get('position') not in PLUGIN_POSITIONS:
        faults.append(f'needs position=one of {PLUGIN_POSITIONS}')
    if plugin.get('stages') is not None and not _is_flags(plugin['stages'], stages):
        faults.append(f'needs stages=one boolean per stage ({stages})')
    unknown = sorted(set(plugin) - {'cfg', 'position', 'stages'})
    if unknown:
        faults.append(f'does not take {", ".join(unknown)}')
    return faults


def _layer_class(kind: str | type) -> type | None:
    if isinstance(kind, type):
        return kind
    # The scope of a detector that is being built, as mmcv looks layers up.
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def plugin_patterns(plugins: Sequence[dict[str, Any]] | None) -> tuple[str, ...]:
    """Patterns of the names of extra layers inside of blocks."""
    return tuple(f'*.{_name_of(plugin["cfg"])}*' for plugin in plugins or ())


def _name_of(cfg: dict[str, Any]) -> str:
    return f'{infer_abbr(_layer_class(cfg["type"]))}{cfg.get("postfix", "")}'


def _double_names(plugins: Sequence[dict[str, Any]], stages: int) -> list[str]:
    """Name the layers of which a block would have two under one name."""
    problems = []
    for stage in range(stages):
        names: set[str] = set()
        for plugin in plugins_of_stage(plugins, stage):
            name = _name_of(plugin['cfg'])
            if name in names:
                problems.append(
                    f'plugins: two layers of a block would be called {name!r}: write '
                    'another postfix into one of them, as in '
                    f"cfg=dict(type={plugin['cfg']['type']!r}, postfix='2')"
                )
            names.add(name)
    return list(dict.fromkeys(problems))
