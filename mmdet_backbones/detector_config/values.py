"""Values that no detector and no training takes: text for numbers, NaN, no classes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from mmengine.config import Config

from ..errors import UserError
from .tree import Place, datasets_in, dotted, walk


class Fault(NamedTuple):
    """A value that cannot be.

    Attributes:
        key: Place in the config, dotted.
        problem: What is allowed there, and what was given.
        value: What was meant, where that is plain; None if it is not.
    """

    key: str
    problem: str
    value: Any = None


class _Kind(NamedTuple):
    """Numbers that a setting takes: in words, and whether a number is one."""

    words: str
    takes: Callable[[Any], bool]
    none: bool = False


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int)


_COUNT = _Kind('a whole number, 1 or more', lambda v: _whole(v) and v >= 1)
_COUNT_OR_NONE = _COUNT._replace(words=f'{_COUNT.words}, or None', none=True)
_FROM_ZERO = _Kind('a whole number, 0 or more', lambda v: _whole(v) and v >= 0)
_WHOLE = _Kind('a whole number', _whole)
_WHOLE_OR_NONE = _Kind('a whole number, or None', _whole, none=True)
# The end of a schedule may be open.
_END = _Kind('a number of epochs or iterations, above 0', lambda v: v > 0, none=True)
_RATE = _Kind('a number, 0 or more', lambda v: math.isfinite(v) and v >= 0)
_ABOVE_ZERO = _Kind('a number above 0', lambda v: v > 0)
_SHARE = _Kind('a number from 0 to 1', lambda v: 0 <= v <= 1)
_TURNS = _Kind(_COUNT.words, lambda v: v >= 1 and v == int(v))

_OPTIMIZER = r'optim_wrapper(\.\w+)?\.optimizer'
_SCHEDULE = r'param_scheduler(\.\d+)?'
_NUMBERS = {
    re.compile(pattern): kind
    for pattern, kind in {
        r'(train|val|test)_dataloader\.batch_size': _COUNT,
        r'(train|val|test)_dataloader\.num_workers': _FROM_ZERO,
        r'(train|val|test)_dataloader\.prefetch_factor': _COUNT_OR_NONE,
        r'train_cfg\.(max_epochs|max_iters|val_interval)': _TURNS,
        r'train_cfg\.val_begin': _FROM_ZERO,
        rf'{_OPTIMIZER}\.(lr|weight_decay|momentum|eps|alpha|dampening)': _RATE,
        rf'{_OPTIMIZER}\.betas\.\d+': _SHARE,
        r'optim_wrapper\.accumulative_counts': _COUNT,
        r'optim_wrapper\.clip_grad\.(max_norm|clip_value)': _ABOVE_ZERO,
        r'optim_wrapper\.paramwise_cfg\.\w+_mult': _RATE,
        rf'{_SCHEDULE}\.begin': _FROM_ZERO,
        rf'{_SCHEDULE}\.(end|T_max|total_iters)': _END,
        rf'{_SCHEDULE}\.milestones\.\d+': _FROM_ZERO,
        rf'{_SCHEDULE}\.(gamma|eta_min|power)': _RATE._replace(none=True),
        rf'{_SCHEDULE}\.(start_factor|end_factor)': _SHARE,
        r'default_hooks\.\w+\.interval': _WHOLE,
        r'default_hooks\.checkpoint\.max_keep_ckpts': _WHOLE,
        r'auto_scale_lr\.base_batch_size': _COUNT,
        r'randomness\.seed': _WHOLE_OR_NONE,
    }.items()
}
_LISTS = re.compile(rf'{_SCHEDULE}\.milestones|{_OPTIMIZER}\.betas')
# Sections that are a dict, and the parts of a detector.
_DICTS = (
    *(f'{split}_{what}' for split in ('train', 'val', 'test') for what in (
        'dataloader', 'cfg')),
    *('model', 'optim_wrapper', 'default_hooks', 'auto_scale_lr', 'env_cfg'),
    *('custom_imports', 'randomness'),
)  # fmt: skip
_PARTS = ('backbone', 'data_preprocessor')
_PARTS_OR_LISTS = ('neck', 'bbox_head', 'rpn_head', 'roi_head', 'mask_head')
_BUILT = (
    *_DICTS[:-2],
    *('param_scheduler', 'custom_hooks', 'visualizer'),
    *('val_evaluator', 'test_evaluator'),
)


def faults_of(config: Config) -> list[Fault]:
    """Name the values of a config that cannot be, whatever the classes are.

    Args:
        config: All of it.
    """
    found = [*_sections(config)]
    if found:  # there is no looking into them
        return found
    found += _paths(config)
    for name in _BUILT:
        for place, part in walk(config.get(name), (name,)):
            found += _types(place, part)
            for key, value in part.items():
                found += _numbers((*place, key), value)
    return found


def require_values(config: Config) -> None:
    """Refuse a config with values that cannot be.

    Args:
        config: All of it.

    Raises:
        UserError: Names all of them.
    """
    faults = faults_of(config)
    if faults:
        raise UserError('; '.join(f'{f.key}: {f.problem}' for f in faults))


def _sections(config: Config) -> Iterator[Fault]:
    for name in _DICTS:
        yield from _dict(name, config.get(name), typed=False)
    for name in ('param_scheduler', 'custom_hooks'):
        yield from _dict(name, config.get(name), several=True)
    hooks = config.get('default_hooks')
    for name, hook in hooks.items() if isinstance(hooks, Mapping) else ():
        yield from _dict(f'default_hooks.{name}', hook)
    for name, inner in (*((loader, 'dataset') for loader in _DICTS[:6:2]),
                        ('optim_wrapper', 'optimizer')):  # fmt: skip
        section = config.get(name)
        if isinstance(section, Mapping):
            yield from _dict(f'{name}.{inner}', section.get(inner))
    model = config.get('model')
    for where in ('model', 'model.detector', 'model.module'):
        part = model if where == 'model' else _inside(model, where.partition('.')[2])
        for name in (*_PARTS, *_PARTS_OR_LISTS) if isinstance(part, Mapping) else ():
            several = name in _PARTS_OR_LISTS
            # What another library builds, as detectron2, has names of its own.
            typed = name != 'data_preprocessor' and 'type' in part
            yield from _dict(f'{where}.{name}', part.get(name), several, typed)


def _inside(model: Any, key: str) -> Any:
    return model.get(key) if isinstance(model, Mapping) else None


def _dict(
    key: str, value: Any, several: bool = False, typed: bool = True
) -> Iterator[Fault]:
    listed = several and isinstance(value, (list, tuple))
    words = 'a dict, or a list of dicts' if several else 'a dict'
    for one in value if listed else [value]:
        if not isinstance(one, (Mapping, type(None))) or (listed and one is None):
            yield Fault(key, f'it must be {words}, got {_shown(one)}')
        elif typed and one and 'type' not in one:
            what = 'it needs a type, the name of a class, got only '
            yield Fault(key, what + ', '.join(map(str, one)))


def _paths(config: Config) -> Iterator[Fault]:
    for loader in _DICTS[:6:2]:
        for place, part in datasets_in(config.get(loader)):
            for key in ('data_root', 'ann_file'):
                if not isinstance(part.get(key), (str, PurePath, type(None))):
                    what = f'it must be a path as text, got {_shown(part[key])}'
                    yield Fault(dotted(loader, *place, key), what)
            prefix = part.get('data_prefix')
            key = dotted(loader, *place, 'data_prefix')
            yield from _dict(key, prefix, typed=False)


def _types(place: Place, part: Mapping[str, Any]) -> Iterator[Fault]:
    if 'type' not in part:
        return
    kind = part['type']
    named = isinstance(kind, str) and kind.strip()
    # An activation or a normalisation that is left out has none.
    inside = place[0] == 'model' and str(place[-1]).endswith('_cfg')
    unset = kind is None and inside
    if not (named or unset or inspect.isclass(kind) or inspect.isroutine(kind)):
        what = f'it must be the name of a class, got {_shown(kind)}'
        yield Fault(dotted(*place, 'type'), what)


def _numbers(place: Place, value: Any) -> Iterator[Fault]:
    key = dotted(*place)
    kind = next((k for pattern, k in _NUMBERS.items() if pattern.fullmatch(key)), None)
    if kind is None and isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            # A dict is looked into by itself, but where numbers stand it is none.
            if not isinstance(item, Mapping) or _LISTS.fullmatch(key):
                yield from _numbers((*place, index), item)
        return
    listed = _LISTS.fullmatch(key)
    if kind is not None and not (value is None and kind.none):
        if not is_number(value) or math.isnan(value) or not kind.takes(value):
            meant = meant_number(value)
            right = meant is not None and kind.takes(meant)
            what = f'it must be {kind.words}, got {_shown(value)}'
            yield Fault(key, what, meant if right else None)
    elif listed and value is not None:
        yield Fault(key, f'it must be a list of numbers, got {_shown(value)}')
    elif isinstance(value, float) and math.isnan(value):
        yield Fault(key, 'it must be a number, got nan')


def meant_number(value: Any) -> int | float | None:
    """The number that a text spells, as YAML leaves ``1e-4``; None if it is none."""
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:60]}...'
