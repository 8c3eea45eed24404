"""A config as a tree of dicts and lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]
Part = Mapping[str, Any]


def walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield every dict of a part of a config, outer ones first.

    A dict may be changed in place when it comes.

    Args:
        node: The part.
        place: Of the part, as keys and numbers in lists; those of the dicts follow.

    Yields:
        The place of each dict, and the dict.
    """
    if isinstance(node, Mapping):
        yield place, node
        for key, value in node.items():
            yield from walk(value, (*place, key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from walk(value, (*place, index))


def dotted(*place: str | int) -> str:
    """Write a place as ``--cfg-options`` takes it."""
    return '.'.join(map(str, place))


def datasets_in(loader: Any) -> Iterator[tuple[Place, Any]]:
    """Yield the data set of a dataloader and those inside it, outer ones first.

    Args:
        loader: Config of the dataloader, or None.

    Yields:
        The place of each below the loader, and its config.
    """
    for place, part in walk(loader or {}):
        names = {step for step in place if isinstance(step, str)}
        if names and names <= {'dataset', 'datasets'}:
            yield place, part


def dataset_of(config: Part, split: str) -> Any:
    """Find the data set of a dataloader, inside whatever repeats or mixes it.

    Args:
        config: All of it.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        Its config, not a copy; an empty dict if there is none.
    """
    found = datasets_in(config.get(f'{split}_dataloader'))
    return next((d for place, d in reversed([*found]) if set(place) == {'dataset'}), {})


def type_name(part: Part) -> str:
    """Name of the class of a part, without a scope; empty if it has none."""
    kind = part.get('type', '')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def plain(value: Any) -> Any:
    """Copy a part of a config without mmengine's classes and scope marks."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
