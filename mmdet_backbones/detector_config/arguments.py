"""Which arguments a class takes, its parents' included."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

Arguments = dict[str, inspect.Parameter]


def arguments_of(cls: Any) -> tuple[Arguments, bool]:
    """List the arguments that a class takes, those handed on to parents included.

    Args:
        cls: A class, or a function that makes an object.

    Returns:
        The arguments by name, and whether these are all: a class may take any.
    """
    if not inspect.isclass(cls):
        known = dict(inspect.signature(cls).parameters)
        return known, _rest(known) is None
    found: Arguments = {}
    # With several parents a class may hand its arguments on to any of them.
    several = any(len(base.__bases__) > 1 for base in cls.__mro__)
    for base in cls.__mro__:
        if '__init__' not in base.__dict__:
            continue
        make = base.__dict__['__init__']
        known = dict(inspect.signature(make).parameters)
        if base is object or _has_kind(known, inspect.Parameter.VAR_POSITIONAL):
            return found, several and bool(found)
        found = {**known, **found}
        rest = _rest(known)
        if rest is not None and not _only_handed_on(make, rest):
            return found, False
        if rest is None and not several:
            return found, True
    return found, several


def _rest(known: Mapping[str, inspect.Parameter]) -> str | None:
    """Name of ``**kwargs``."""
    kind = inspect.Parameter.VAR_KEYWORD
    return next((p.name for p in known.values() if p.kind == kind), None)


def _has_kind(known: Mapping[str, inspect.Parameter], kind: Any) -> bool:
    return any(parameter.kind == kind for parameter in known.values())


def _only_handed_on(make: Callable[..., Any], rest: str) -> bool:
    """Whether ``**kwargs`` goes to the parent's constructor and nowhere else.

    Some classes swallow it or build something else from it; they take any argument.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(make)))
    except (OSError, SyntaxError, TypeError):
        return False
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == rest]
    handed_on = [
        word.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith('.__init__')
        for word in call.keywords
        if word.arg is None
    ]
    return bool(uses) and all(any(use is value for value in handed_on) for use in uses)
