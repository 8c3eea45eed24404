"""A config as text: short, laid out by the formatter that mmengine uses."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from yapf.yapflib.yapf_api import FormatCode

from .tree import Part, Place, dotted, plain

_WIDTH = 88
_STYLE = dict(
    based_on_style='pep8',
    column_limit=_WIDTH,
    dedent_closing_brackets=True,
    split_before_expression_after_opening_paren=True,
    space_between_ending_comma_and_closing_bracket=False,
    # A string that is too long stays on the line of its key.
    allow_split_before_default_or_named_assigns=False,
    allow_split_before_dict_value=False,
)


class Code(str):
    """An expression that stands in the file as it is, such as ``_base_.x``."""


def render(value: Any) -> str:
    """Write a value as Python, in one line if it fits into 88 columns.

    Args:
        value: Made of dicts, lists, tuples and plain values, and :class:`Code`.
    """
    return _laid_out(_flat(value))


def assignment(name: str, value: Any) -> str:
    """Write one statement of a config."""
    return _laid_out(f'{name} = {_flat(value)}')


def _laid_out(source: str) -> str:
    return FormatCode(source, style_config=_STYLE)[0].rstrip()


def _flat(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({", ".join(f"{k}={_flat(v)}" for k, v in value.items())})'
        return f'{{{", ".join(f"{k!r}: {_flat(v)}" for k, v in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    if isinstance(value, tuple):
        comma = ',' if len(value) == 1 else ''
        return f'({", ".join(map(_flat, value))}{comma})'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def comment(text: str) -> list[str]:
    """Break a paragraph into lines that start with ``#``; words stay whole."""
    return textwrap.wrap(
        ' '.join(text.split()),
        _WIDTH,
        initial_indent='# ',
        subsequent_indent='# ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def nested(base: Part, edits: Mapping[Place, Any]) -> dict[str, Any]:
    """Turn values by place into the dict that mmengine merges into a base.

    Lists are not merged but replaced, so one that changes inside is written anew: in
    one line from the base's if all its entries change alike, or in full.

    Args:
        base: ``model`` of the base.
        edits: Values by place below it.
    """
    result: dict[str, Any] = {}
    for place, value in edits.items():
        numbers = [depth for depth, step in enumerate(place) if isinstance(step, int)]
        if numbers:
            place = place[: numbers[0]]
            value = _new_list(base, place, edits)
        *outer, key = map(str, place)
        node = result
        for step in outer:
            node = node.setdefault(step, {})
        both = isinstance(node.get(key), dict) and isinstance(value, dict)
        node[key] = {**node[key], **value} if both else value
    return result


def _new_list(base: Part, place: Place, edits: Mapping[Place, Any]) -> list[Any] | Code:
    """Write a list of the base anew, with the edits of its entries."""
    old: Any = base
    for step in place:
        old = old[step]
    size = len(place)
    changes = {p[size:]: value for p, value in edits.items() if p[:size] == place}
    by_entry = [
        {p[1:]: v for p, v in changes.items() if p[0] == n} for n in range(len(old))
    ]
    alike = all(entry == by_entry[0] for entry in by_entry)
    if alike and all(len(inner) == 1 for inner in by_entry[0]):
        words = ', '.join(f'{key}={_flat(v)}' for (key,), v in by_entry[0].items())
        source = dotted('_base_.model', *place)
        return Code(f'[dict(part, {words}) for part in {source}]')
    new = plain(list(old))
    for (*outer, key), value in changes.items():
        part: Any = new
        for step in outer:
            part = part[step]
        # What is written anew has nothing to delete.
        part[key] = (
            {k: v for k, v in value.items() if k != '_delete_'}
            if isinstance(value, dict)
            else value
        )
    return new
