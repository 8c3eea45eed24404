"""Which arguments a class takes, its parents' included."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Any

Arguments = dict[str, Parameter]


def arguments_of(cls: Any) -> tuple[Arguments, bool]:
    """List the arguments that a class takes, those handed on to parents included.

    Args:
        cls: A class, or a function that makes an object.

    Returns:
        The arguments by name, its own first, and whether these are all: a class may
        take any.
    """
    if not inspect.isclass(cls):
        known = inspect.signature(cls).parameters
        return _named(known), _rest(known, Parameter.VAR_KEYWORD) is None
    found: Arguments = {}
    # With several parents a class may hand its arguments on to any of them.
    several = any(len(base.__bases__) > 1 for base in cls.__mro__)
    for base in cls.__mro__:
        if '__init__' not in base.__dict__:
            continue
        make = base.__dict__['__init__']
        known = inspect.signature(make).parameters
        positional = _rest(known, Parameter.VAR_POSITIONAL)
        if base is object or (positional and not _only_handed_on(make, positional)):
            return found, several and bool(found)
        named = _named(known)
        named.pop('self', None)
        found = {**found, **{n: p for n, p in named.items() if n not in found}}
        rest = _rest(known, Parameter.VAR_KEYWORD)
        if rest is not None and not _only_handed_on(make, rest):
            return found, False
        if rest is None and not several:
            return found, True
    return found, several


def _named(known: Mapping[str, Parameter]) -> Arguments:
    kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {name: p for name, p in known.items() if p.kind not in kinds}


def _rest(known: Mapping[str, Parameter], kind: Any) -> str | None:
    """Name of ``*args`` or ``**kwargs``."""
    return next((p.name for p in known.values() if p.kind == kind), None)


def _only_handed_on(make: Callable[..., Any], rest: str) -> bool:
    """Whether ``rest`` goes to the parent's constructor, completed if need be.

    Some classes swallow it or build something else from it; they take any argument.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(make)))
    except (OSError, SyntaxError, TypeError):
        return False
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == rest]
    fine = [node for call in ast.walk(tree) for node in _handed_on(call)]
    return bool(uses) and all(any(use is node for node in fine) for use in uses)


def _handed_on(call: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return
    if call.func.attr == '__init__':
        yield from (a.value for a in call.args if isinstance(a, ast.Starred))
        yield from (word.value for word in call.keywords if word.arg is None)
    elif call.func.attr == 'update':
        yield call.func.value
