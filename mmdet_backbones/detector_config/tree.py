"""A config as a tree of dicts and lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Copy a part of a config without mmengine's classes and scope marks."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
