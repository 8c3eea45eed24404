"""Types and arguments of a detector's parts against their classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

from ..engine.mistakes import explain
from .findings import Finding, line

if TYPE_CHECKING:
    from .subject import Subject

# Built from other registries, or not built at all.
_SKIPPED = ('dcn', 'plugins', 'upsample', 'pipeline')


def check_arguments(subject: Subject) -> Iterator[Finding]:
    """Report unknown classes, and arguments that a class does not take.

    An argument that was left over from the base config is the usual case: the dict of
    a new class was merged with that of the old one.
    """
    with DefaultScope.overwrite_default_scope(subject.scope):
        for place, part in _parts(subject.config.model, 'model'):
            yield from _check(place, part)


def _parts(part: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(part, Mapping):
        if 'type' in part:
            yield place, part
        for key, value in part.items():
            # norm_cfg, act_cfg and their kin take arguments of functions that build.
            if key not in _SKIPPED and not key.endswith('_cfg'):
                yield from _parts(value, f'{place}.{key}')
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from _parts(value, f'{place}.{index}')


def _check(place: str, part: Mapping[str, Any]) -> Iterator[Finding]:
    given = part['type']
    cls = _find(given) if isinstance(given, str) else given
    if cls is None:
        # What is no model or task utility is built from a registry of its own.
        if place.count('.') <= 1:
            error = KeyError(f'{given} is not in the mmdet::model registry')
            yield Finding('type', place, explain(error))
        return
    known = arguments_of(cls)
    if known is None:
        return
    wrong = [key for key in part if key not in known and key not in _META]
    if not wrong:
        return
    near = {key: get_close_matches(key, known, n=1, cutoff=0.75) for key in wrong}
    guesses = [f'{key} (perhaps {hit[0]})' if hit else key for key, hit in near.items()]
    text = (
        f'{given} takes no argument {", ".join(guesses)}. If it was inherited from the '
        'base config, the dict needs _delete_=True, which leaves nothing of the base'
    )
    yield Finding('arguments', place, text, (line(f'{place}._delete_', True),))


_META = ('type', '_scope_', '_delete_')


def _find(name: str) -> Any:
    for root in (MODELS, TASK_UTILS):
        with root.switch_scope_and_registry(None) as registry:
            try:
                found = registry.get(name)
            except (KeyError, ImportError, AttributeError):
                continue
        if found is not None:
            return found
    return None


def arguments_of(cls: Any) -> set[str] | None:
    """Names of the arguments that a class takes, its parents' included.

    Args:
        cls: A class, or a function that makes an object.

    Returns:
        The names, or None if it takes any.
    """
    if not inspect.isclass(cls):
        parameters = inspect.signature(cls).parameters.values()
        if any(p.kind == p.VAR_KEYWORD for p in parameters):
            return None
        return {p.name for p in parameters}
    names: set[str] = set()
    several = any(len(base.__bases__) > 1 for base in cls.__mro__)
    for base in cls.__mro__:
        if '__init__' not in base.__dict__:
            continue
        parameters = inspect.signature(base.__dict__['__init__']).parameters.values()
        if base is object or any(p.kind == p.VAR_POSITIONAL for p in parameters):
            return names if several and names else None
        names |= {p.name for p in parameters}
        takes_rest = any(p.kind == p.VAR_KEYWORD for p in parameters)
        # With several parents a class may hand its arguments on to any of them.
        if not takes_rest and not several:
            return names
    return names if several else None
