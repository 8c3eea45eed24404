"""A backbone of the catalog, a source of them, and the nets that a family publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = 'ours'


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: ``source/model``; our own nets have no source before their name.
        source: A key of ``SOURCES``.
        config: For ``MODELS.build``, without levels, so with the class's default.
        weights: Where its usual weights are, as ``init_cfg`` takes it, or None.
        every_level: Arguments that make it return all of its levels, if the class
            returns fewer by default.
    """

    name: str
    source: str
    config: Mapping[str, Any]
    weights: str | None = None
    every_level: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A library that backbones come from.

    Attributes:
        name: A key of ``SOURCES``.
        version: Of the installed library, None if there is none.
        entries: By name, in the order of the library.
        aliases: Other names that :func:`find` knows, such as mmpretrain's full ones.
        problem: Why there are no entries, with what to type; None if there are.
    """

    name: str
    version: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    aliases: Mapping[str, Entry] = field(default_factory=dict)
    problem: str | None = None


def variants(folder: str) -> dict[str, dict[str, Any]]:
    """Read the published nets off our classes.

    Args:
        folder: Module path below this package that the classes are defined in.

    Returns:
        Config dicts by the name of the variant.
    """
    from ..registry import MODELS

    MODELS.import_from_location()
    package = __name__.partition('.')[0]
    return {
        name: dict(type=f'{package}.{type_}', **arguments)
        for type_, cls in MODELS.module_dict.items()
        if cls.__module__.startswith(f'{package}.{folder}')
        for name, arguments in getattr(cls, 'variants', {}).items()
    }
