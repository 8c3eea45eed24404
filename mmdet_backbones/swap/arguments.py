"""Which arguments a class takes, its parents' included."""

from __future__ import annotations

import inspect
from typing import Any


def arguments_of(cls: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """List the arguments that a class takes, those handed on to parents included.

    Args:
        cls: A class, or a function that makes an object.

    Returns:
        The arguments by name, and whether these are all: a class may take any.
    """
    if not inspect.isclass(cls):
        known = dict(inspect.signature(cls).parameters)
        return known, not _takes_rest(known)
    found: dict[str, inspect.Parameter] = {}
    # With several parents a class may hand its arguments on to any of them.
    several = any(len(base.__bases__) > 1 for base in cls.__mro__)
    for base in cls.__mro__:
        if '__init__' not in base.__dict__:
            continue
        known = dict(inspect.signature(base.__dict__['__init__']).parameters)
        if base is object or _has(known, inspect.Parameter.VAR_POSITIONAL):
            return found, several and bool(found)
        found = {**known, **found}
        if not _takes_rest(known) and not several:
            return found, True
    return found, several


def _takes_rest(known: dict[str, inspect.Parameter]) -> bool:
    return _has(known, inspect.Parameter.VAR_KEYWORD)


def _has(known: dict[str, inspect.Parameter], kind: Any) -> bool:
    return any(parameter.kind == kind for parameter in known.values())
