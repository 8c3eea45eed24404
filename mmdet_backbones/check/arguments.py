"""Types and arguments of a detector's parts, ``init_cfg`` among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import Parameter
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

from ..arguments import arguments_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.read import merged_with
from ..detector_config.tree import Place, dotted, plain, type_name, walk
from ..detector_config.values import is_number, meant_number
from ..errors import explain
from ..weights.loading.init_cfg import (
    ARGUMENTS,
    MMENGINE_ARGUMENTS,
    Terms,
    init_cfg_of,
    split_entries,
)
from .findings import Finding, instead, line

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
                yield from _check(detector, place, part)


def check_packages(detector: DetectorConfig) -> Iterator[Finding]:
    """Report a package that is missing and that only the loss of a head needs."""
    head = detector.model.get('bbox_head')
    paa = isinstance(head, Mapping) and type_name(head) == 'PAAHead'
    if paa and find_spec('sklearn') is None:
        # mmdet says "pip install sklearn", which is no package.
        text = 'PAAHead needs the module sklearn for its loss, which is not installed: '
        text += 'run pip install scikit-learn'
        yield Finding('package', f'{detector.key}.bbox_head', text)


def _check(
    detector: DetectorConfig, place: Place, part: Mapping[str, Any]
) -> Iterator[Finding]:
    given = part['type']
    if isinstance(given, str) and place[-2:] == ('backbone', 'model'):
        # MMPretrainBackbone looks its net up there, whatever mmdet calls so.
        given = f'mmpretrain.{given.removeprefix("mmpretrain.")}'
    cls = _find(given) if isinstance(given, str) else given
    if cls is None:
        # What is no model or task utility is built from a registry of its own.
        if len(place) <= 2:
            error = KeyError(f'{given} is not in the mmdet::model registry')
            yield Finding('type', dotted(*place), explain(error))
        return
    known, complete = arguments_of(cls)
    yield from _text_for_numbers(place, part, known)
    if not complete:
        return
    allowed = {*known, *_META}
    if place[-2:] == ('bbox_head', 'loss_cls'):
        # DETR's head takes it out of the dict before the loss is built.
        allowed.add('bg_cls_weight')
    wrong = [key for key in part if key not in allowed]
    if dotted(*place) == 'model' and wrong == ['pretrained'] and 'backbone' in part:
        text = f'{type_name(part)} takes no pretrained, which mmdet 2 handed to the '
        text += 'backbone: there it is called init_cfg'
        init_cfg = dict(type='Pretrained', checkpoint=part['pretrained'])
        lines = (instead(detector, 'model.backbone.init_cfg', init_cfg),)
        yield Finding(
            'arguments',
            'model.pretrained',
            text,
            lines if part['pretrained'] else (),
            remove=('model.pretrained',),
        )
        return
    yield from refused(detector, place, part, wrong, known)


def refused(
    detector: DetectorConfig,
    place: Place,
    part: Mapping[str, Any],
    wrong: Sequence[str],
    known: Mapping[str, Parameter],
) -> Iterator[Finding]:
    """Report arguments that a class does not take, with where they come from.

    Args:
        detector: The config.
        place: Of the part in it.
        part: Config of an object.
        wrong: Those of its keys that the class does not take.
        known: What it takes.
    """
    old = _left_over(detector, place, part) if wrong else {}
    left = [key for key in wrong if key in old]
    if left:
        text = (
            f'{type_name(part)} takes no argument {", ".join(left)}, inherited from '
            f'the {type_name(old)} of the base config: the dict needs _delete_=True, '
            'which leaves nothing of the base'
        )
        delete = line(dotted(*place, '_delete_'), True)
        yield Finding('arguments', dotted(*place), text, (delete,))
    for key in wrong:
        if key not in left:
            yield _of_their_own(place, part, key, known)


def _text_for_numbers(
    place: Place, part: Mapping[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Finding]:
    for key, value in part.items():
        if not isinstance(value, str) or key not in known:
            continue
        argument = known[key]
        stated = argument.annotation in (int, float, 'int', 'float')
        meant = meant_number(value)
        # Of the arguments that take a word too, 'all' is none that was mistaken.
        words = meant is None and 'FrozenStages' in str(argument.annotation)
        if stated or (is_number(argument.default) and not words):
            whole = dotted(*place, key)
            cure = () if meant is None else (line(whole, meant),)
            text = f'{type_name(part)} takes a number, got {value!r}'
            yield Finding('values', whole, text, cure)


def _left_over(
    detector: DetectorConfig, place: Place, part: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What stood at a place in a base config and was merged with another class."""
    for old in merged_with(detector.config, place):
        if 'type' in old and old['type'] != part['type']:
            return {k: v for k, v in old.items() if part[k] == v or k == 'type'}
    return {}


def _of_their_own(
    place: Place, part: Mapping[str, Any], key: str, known: Mapping[str, Any]
) -> Finding:
    """An argument that the config itself gives to a class that has none such."""
    name = type_name(part)
    text = f'{name} takes no argument {key}'
    free = [argument for argument in known if argument not in part]
    owner = _owner(key) if 'backbone' in place else None
    near = [] if owner else get_close_matches(key, free, n=1, cutoff=0.75)
    cure = [line(dotted(*place, right), plain(part[key])) for right in near]
    for other in (name for group in _EITHER_OR if {*near} & {*group} for name in group):
        if other not in near and part.get(other) is not None:
            cure.append(line(dotted(*place, other), None))
    if near:
        text += f'; {near[0]} is meant'
    elif owner:
        text += f', which is one of {owner}: {name} has nothing of that kind'
    return Finding(
        'arguments', dotted(*place), text, tuple(cure), remove=(dotted(*place, key),)
    )


def _owner(key: str) -> str | None:
    """A backbone of mmdet that takes an argument."""
    hosts = MODELS.children.get('mmdet', MODELS).module_dict
    names = [n for n, cls in hosts.items() if '.backbones.' in cls.__module__]
    # The one that most configs have comes first.
    for name in sorted(names, key=lambda name: name != 'ResNet'):
        if key in arguments_of(hosts[name])[0]:
            return f"mmdet's {name}"
    return None


# Of these one is given.
_EITHER_OR = (
    ('out_indices', 'out_strides', 'return_nodes'),
    ('frozen_stages', 'freeze_at'),
)
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
        whole = isinstance(value, dict)
        cure = instead(detector, key, value) if whole else line(key, value)
        yield Finding('weights', key, '; '.join(problems), (cure,))


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
