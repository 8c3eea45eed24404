"""Types and arguments of a detector's parts against their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

from ..arguments import arguments_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.read import bases_of
from ..detector_config.tree import Place, dotted, plain, type_name, walk
from ..errors import explain
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
    if not complete:
        return
    allowed = {*known, *_META}
    if place[-2:] == ('bbox_head', 'loss_cls'):
        # DETR's head takes it out of the dict before the loss is built.
        allowed.add('bg_cls_weight')
    wrong = [key for key in part if key not in allowed]
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


def _left_over(
    detector: DetectorConfig, place: Place, part: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What stood at a place in a base config and was merged with another class."""
    for base in bases_of(detector.config):
        old: Any = base.to_dict()
        for step in place:
            inside = isinstance(old, Mapping) and step in old
            old = old[step] if inside else None
        # With _delete_=True not all of its keys would be there.
        merged = isinstance(old, Mapping) and set(old) <= set(part)
        if merged and 'type' in old and old['type'] != part['type']:
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
