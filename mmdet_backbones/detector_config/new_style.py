"""Configs in mmengine's new style, classes as types, told as text would tell them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import mmengine.registry as roots
from mmengine.config import Config
from mmengine.registry import Registry

# Whose classes are registered wherever the library is imported.
_LIBRARIES = ('mmdet', 'mmengine', 'mmcv', 'torch')


def in_names(config: Config) -> Config:
    """Put names into the places of classes and functions.

    What reads a config compares names, and a config that is written down has nothing
    else. A class that is registered gets the name that configs know it by, any other
    its full path, which mmengine imports.

    Args:
        config: Of either style.

    Returns:
        The config itself if it holds no classes, or else one that stands by itself.
    """
    if not is_new_style(config):
        return config
    imported = config._imported_names
    scope = config.get('default_scope')
    kept = {
        key: _named(value, scope)
        for key, value in config.items()
        if key not in imported and not isinstance(value, types.ModuleType)
    }
    found = Config(kept, filename=config.filename)
    # There is no file that says this.
    object.__setattr__(found, '_text', found.pretty_text)
    return found


def is_new_style(config: Config) -> bool:
    """Whether the file of a config imports what it names."""
    return bool(config.filename) and Config._is_lazy_import(config.filename)


def _named(value: Any, scope: str | None) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(part, scope) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_named(part, scope) for part in value)
    if inspect.isclass(value) or inspect.isroutine(value):
        return _registered(value, scope) or f'{value.__module__}.{value.__qualname__}'
    return value


def _registered(value: Any, scope: str | None) -> str | None:
    library = value.__module__.partition('.')[0]
    for registry in _registries():
        # A class of the user's own is known after an import that a name does not do.
        if library not in (*_LIBRARIES, registry.scope):
            continue
        for name, known in registry.module_dict.items():
            if known is value:
                here = registry.scope in ('mmengine', scope)
                return name if here else f'{registry.scope}.{name}'
    return None


def _registries() -> Iterator[Registry]:
    for root in vars(roots).values():
        if isinstance(root, Registry):
            yield root
            yield from root.children.values()
