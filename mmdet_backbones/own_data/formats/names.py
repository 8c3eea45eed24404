"""The list of classes that a folder carries with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..survey import Survey

_LISTS = ('classes.txt', 'labels.txt', 'obj.names', 'predefined_classes.txt')
# What labelme puts at the head of its list; no object is of these.
_NO_CLASSES = ('__ignore__', '_background_')


def listed_classes(found: Survey) -> tuple[str, ...] | None:
    """Return the classes of a file such as classes.txt; None without one."""
    files = [*found.files['.txt'], *found.files['.names']]
    for wanted in _LISTS:
        for name in files:
            if Path(name).name.lower() == wanted:
                text = (found.root / name).read_text(encoding='utf-8', errors='replace')
                lines = [line.strip() for line in text.lstrip('\ufeff').splitlines()]
                names = [n for n in lines if n and n not in _NO_CLASSES]
                return tuple(dict.fromkeys(names)) or None
    return None


def yaml_settings(found: Survey) -> tuple[str, dict[str, Any]] | None:
    """Return the YAML file that names a YOLO data set's classes, and its content."""
    for name in [*found.files['.yaml'], *found.files['.yml']]:
        path = found.root / name
        if path.stat().st_size > 1 << 20:
            continue
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get('names'), (list, dict)):
            return name, content
    return None


def yaml_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the names in a YOLO data set's YAML, by number."""
    names = content['names']
    if isinstance(names, list):
        return tuple(_name(name, i) for i, name in enumerate(names))
    numbers = [key for key in names if isinstance(key, int) and 0 <= key < 10_000]
    last = max(numbers, default=-1)
    return tuple(_name(names.get(i), i) for i in range(last + 1))


def _name(given: Any, number: int) -> str:
    # A list in a YAML may hold itself many times over: it is never written out.
    plain = isinstance(given, (str, int, float))
    return str(given).strip() if plain else f'class {number}'
