"""A config as text: short, in mmengine's style, and written in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 88


class Code(str):
    """An expression that stands in the file as it is, such as ``_base_.x``."""


def render(value: Any, indent: int = 0, used: int = 0) -> str:
    """Write a value as Python.

    Args:
        value: Made of dicts, lists, tuples and plain values, and :class:`Code`.
        indent: Of the line that it starts on.
        used: Columns of that line that are taken before it and after it.

    Returns:
        One line if it fits into 88 columns, or one entry a line.
    """
    flat = _flat(value)
    if indent + used + len(flat) <= _WIDTH:
        return flat
    inner = indent + 4
    pad = ' ' * inner
    if isinstance(value, Code):
        each, loop, source = flat[1:-1].partition(' for part in ')
        if not loop:
            return flat
        return f'[\n{pad}{each}\n{pad}for part in {source}\n{" " * indent}]'
    if isinstance(value, Mapping) and value and all(_is_word(key) for key in value):
        entries = [
            f'{pad}{key}={render(item, inner, len(key) + 2)}'
            for key, item in value.items()
        ]
        return _block('dict(', entries, ')', indent)
    if isinstance(value, Mapping) and value:
        entries = [
            f'{pad}{key!r}: {render(item, inner, len(repr(key)) + 3)}'
            for key, item in value.items()
        ]
        return _block('{', entries, '}', indent)
    if isinstance(value, (list, tuple)) and value:
        entries = [f'{pad}{render(item, inner, 1)}' for item in value]
        opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
        return _block(opening, entries, closing, indent)
    return flat


def _block(opening: str, entries: Sequence[str], closing: str, indent: int) -> str:
    return '\n'.join([opening, *(f'{e},' for e in entries), ' ' * indent + closing])


def _flat(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        if all(_is_word(key) for key in value):
            return f'dict({", ".join(f"{k}={_flat(v)}" for k, v in value.items())})'
        return f'{{{", ".join(f"{k!r}: {_flat(v)}" for k, v in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    if isinstance(value, tuple):
        comma = ',' if len(value) == 1 else ''
        return f'({", ".join(map(_flat, value))}{comma})'
    return repr(value)


def _is_word(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier()


def assignment(name: str, value: Any) -> str:
    """Write one statement of a config."""
    return f'{name} = {render(value, 0, len(name) + 3)}'


def comment(text: str) -> list[str]:
    """Break a paragraph into lines that start with ``#``; a command stays whole."""
    lines, line = [], '#'
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and line != '#':
            lines.append(line)
            line = '#'
        line += f' {word}'
    return [*lines, line]


def nested(base: Any, edits: Mapping[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Turn values by place into the dict that mmengine merges into a base.

    Lists are not merged but replaced, so one that changes inside is written anew: in
    one line from the base's if all its entries change alike, or in full.

    Args:
        base: ``model`` of the base.
        edits: Values by place below it.
    """
    result: dict[str, Any] = {}
    for place, value in edits.items():
        before: Any = base
        for depth, step in enumerate(place):
            if isinstance(step, int):
                _replace_list(result, base, place[:depth], edits)
                break
            before = before.get(step) if isinstance(before, Mapping) else None
        else:
            node = result
            for step in place[:-1]:
                node = node.setdefault(str(step), {})
            key = str(place[-1])
            both = isinstance(node.get(key), dict) and isinstance(value, dict)
            node[key] = {**node[key], **value} if both else value
    return result


def _replace_list(
    result: dict[str, Any],
    base: Any,
    place: tuple[str | int, ...],
    edits: Mapping[tuple[str | int, ...], Any],
) -> None:
    from .tree import plain

    node, items = result, base
    for step in place[:-1]:
        node = node.setdefault(str(step), {})
        items = items[step]
    items = items[place[-1]]
    inside = {p[len(place) :]: v for p, v in edits.items() if p[: len(place)] == place}
    each = [
        {p[1:]: v for p, v in inside.items() if p[0] == index}
        for index in range(len(items))
    ]
    alike = all(one == each[0] and all(len(p) == 1 for p in one) for one in each)
    if alike:
        words = ', '.join(f'{p[0]}={_flat(v)}' for p, v in each[0].items())
        name = '.'.join(map(str, ('_base_.model', *place)))
        node[str(place[-1])] = Code(f'[dict(part, {words}) for part in {name}]')
        return
    full = plain(list(items))
    for index, changes in enumerate(each):
        for inner, value in changes.items():
            if not inner:
                # A whole entry; what is written anew has nothing to delete.
                full[index] = {k: v for k, v in value.items() if k != '_delete_'}
                continue
            target: Any = full[index]
            for step in inner[:-1]:
                target = target[step]
            target[inner[-1]] = value
    node[str(place[-1])] = full
