"""Extra layers inside residual blocks, the ``plugins`` of mmdet's nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn.bricks.plugin import infer_abbr
from mmengine.registry import MODELS

POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


def is_flags(values: object, stages: int) -> bool:
    """Tell whether ``values`` holds one boolean per stage."""
    return (
        isinstance(values, Sequence)
        and len(values) == stages
        and all(isinstance(value, bool) for value in values)
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
    if plugin.get('position') not in POSITIONS:
        faults.append(f'needs position=one of {POSITIONS}')
    if plugin.get('stages') is not None and not is_flags(plugin['stages'], stages):
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


def _double_names(plugins: Sequence[dict[str, Any]], stages: int) -> list[str]:
    """Name the layers of which a block would have two under one name."""
    problems = []
    for stage in range(stages):
        names: set[str] = set()
        for plugin in plugins_of_stage(plugins, stage):
            cfg = plugin['cfg']
            name = f'{infer_abbr(_layer_class(cfg["type"]))}{cfg.get("postfix", "")}'
            if name in names:
                problems.append(
                    f'plugins: two layers of a block would be called {name!r}: write '
                    'another postfix into one of them, as in '
                    f"cfg=dict(type={cfg['type']!r}, postfix='2')"
                )
            names.add(name)
    return list(dict.fromkeys(problems))


def plugins_of_stage(
    plugins: Sequence[dict[str, Any]] | None, stage: int
) -> tuple[dict[str, Any], ...]:
    """Choose the plugins of one stage, counted from 0."""
    return tuple(
        plugin
        for plugin in plugins or ()
        if plugin.get('stages') is None or plugin['stages'][stage]
    )
