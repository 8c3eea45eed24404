"""Types and arguments of a detector's parts, ``init_cfg`` among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

from ..arguments import arguments_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import dotted, plain, walk
from ..errors import explain
from ..weights.loading.init_cfg import (
    ARGUMENTS,
    MMENGINE_ARGUMENTS,
    Terms,
    init_cfg_of,
    split_entries,
)
from .findings import Finding, line

# Built from other registries, or not built at all.
_SKIPPED = ('dcn', 'plugins', 'upsample', 'pipeline')


def check_arguments(detector: DetectorConfig) -> Iterator[Finding]:
    """Report unknown classes, and arguments that a class does not take.

    An argument that was left over from the base config is the usual case: the dict of
    a new class was merged with that of the old one.
    """
    with DefaultScope.overwrite_default_scope(detector.scope):
        for place, part in walk(detector.config.model, ('model',)):
            # norm_cfg, act_cfg and their kin take arguments of functions that build.
            skipped = any(s in _SKIPPED or str(s).endswith('_cfg') for s in place)
            if 'type' in part and not skipped:
                yield from _check(dotted(*place), part)


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
    if place == 'model' and wrong == ['pretrained'] and 'backbone' in part:
        init_cfg = dict(type='Pretrained', checkpoint=part['pretrained'])
        text = (
            f'{given} of mmdet 3 takes no pretrained, which mmdet 2 handed to the '
            f'backbone: take it out, and write {line("init_cfg", init_cfg)} into the '
            'backbone'
        )
        yield Finding('arguments', 'model.pretrained', text)
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


def mend_init_cfgs(detector: DetectorConfig) -> Iterator[Finding]:
    """Report every ``init_cfg`` that cannot be used, and go on with what was meant.

    Args:
        detector: The config, which is changed: as the lines to write would.
    """
    for place, part in walk(detector.config.model, ('model',)):
        given = init_cfg_of(part) if 'type' in part else None
        if not given:
            continue
        ours = str(part['type']).startswith('mmdet_backbones.')
        several = isinstance(given, (list, tuple))
        found = [_mended(e, ours) for e in (given if several else [given])]
        problems = [problem for problem, _ in found if problem]
        if not problems:
            continue
        kept = [entry for _, entry in found if entry is not None]
        value: Any = kept if several else next(iter(kept), None)
        part['init_cfg'] = value
        key = dotted(*place, 'init_cfg')
        written = dict(_delete_=True, **value) if isinstance(value, dict) else value
        yield Finding('weights', key, '; '.join(problems), (line(key, written),))


def _mended(entry: Any, ours: bool) -> tuple[str, dict[str, Any] | None]:
    """What is wrong with an entry, and what was meant by it; None if that is open."""
    try:
        pretrained, _ = split_entries(entry)
    except TypeError as error:
        if isinstance(entry, str):
            return str(error), dict(type='Pretrained', checkpoint=entry)
        if isinstance(entry, Mapping) and 'checkpoint' in entry:
            return str(error), dict(type='Pretrained', **plain(entry))
        return str(error), None
    if not pretrained:
        return '', plain(entry)
    return _of_pretrained(plain(entry), ours)


def _of_pretrained(
    entry: dict[str, Any], ours: bool
) -> tuple[str, dict[str, Any] | None]:
    """Arguments of ``Pretrained``: names and values."""
    allowed = ARGUMENTS if ours else MMENGINE_ARGUMENTS
    if not isinstance(entry.get('checkpoint'), str):
        text = f'checkpoint must be a path or an address, got {entry.get("checkpoint")}'
        return text, None
    problems, kept = [], {'type': entry['type']}
    for name, value in entry.items():
        if name == 'type':
            continue
        if name in allowed:
            problem = _value_problem(name, value)
            problems += [problem] if problem else []
            kept.update({} if problem else {name: value})
            continue
        near = get_close_matches(name, [n for n in allowed if n not in entry], n=1)
        problems.append(
            f"type='Pretrained' takes {', '.join(allowed)}, and no {name}"
            + (f' (perhaps {near[0]})' if near else '')
        )
        kept.update({near[0]: value} if near else {})
    return '; '.join(problems), kept


def _value_problem(name: str, value: Any) -> str:
    try:
        Terms.of({name: value})
    except (TypeError, ValueError) as error:
        return str(error)
    return ''
