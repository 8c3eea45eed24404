"""``init_cfg`` of every part of a detector: what it must look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import dotted, plain, walk
from ..weights.loading.init_cfg import (
    ARGUMENTS,
    MMENGINE_ARGUMENTS,
    Terms,
    init_cfg_of,
    split_entries,
)
from .findings import Finding, line


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
    return _arguments(plain(entry), ours)


def _arguments(entry: dict[str, Any], ours: bool) -> tuple[str, dict[str, Any] | None]:
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
