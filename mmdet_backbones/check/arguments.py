"""Types and arguments of a detector's parts against their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

from ..detector_config.arguments import arguments_of
from ..errors import explain
from .findings import Finding, line

if TYPE_CHECKING:
    from ..detector_config.detector import Subject

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
    known, complete = arguments_of(cls)
    if not complete:
        return
    allowed = {*known, *_META}
    if place.endswith('.bbox_head.loss_cls'):
        # DETR's head takes it out of the dict before the loss is built.
        allowed.add('bg_cls_weight')
    wrong = [key for key in part if key not in allowed]
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
