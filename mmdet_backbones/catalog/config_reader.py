"""Read a part of a config file as data: nothing in the file is executed."""

from __future__ import annotations

import ast
import operator
from functools import cache
from os.path import normpath
from pathlib import Path
from typing import Any


class UnreadableError(ValueError):
    """A value that only running the file would give."""


def read_model_part(path: Path, part: str) -> dict[str, Any] | None:
    """Read one entry of ``model``, bases included, as mmengine would merge them.

    Args:
        path: A config in mmengine's text form, with a ``_base_`` or without.
        part: Key of ``model`` whose value is a dict, such as ``'backbone'``.

    Returns:
        The entry, or None if the model has none that is a dict.

    Raises:
        UnreadableError: If it is not made of literals, ``dict(...)``, arithmetic and
            names of such values.
        OSError: If the file or a base is not there.
    """
    found = _merge(*_layers(Path(normpath(path)), part)).get(part)
    return found if isinstance(found, dict) else None


@cache
def _layers(path: Path, part: str) -> tuple[dict[str, Any], ...]:
    """That part of the models of the bases and of the file, in the order of merging."""
    names: dict[str, Any] = {'_base_': []}
    model: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(node, ast.Assign) or not isinstance(target, ast.Name):
            continue
        if target.id == 'model' and isinstance(node.value, ast.Call):
            wanted = (part, '_delete_')
            keywords = [word for word in node.value.keywords if word.arg in wanted]
            model = {str(word.arg): _value(word.value, names) for word in keywords}
            continue
        try:
            names[target.id] = _value(node.value, names)
        except UnreadableError:
            # Most of a config is no business of ours; a part that uses this name
            # after all fails there.
            names.pop(target.id, None)
    bases = names['_base_']
    layers: list[dict[str, Any]] = []
    for base in [bases] if isinstance(bases, str) else bases:
        layers += _layers(Path(normpath(path.parent / base)), part)
    return (*layers, model)


_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, names) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, names) for key in node.keys if key is not None]
        values = [_value(value, names) for value in node.values]
        return dict(zip(keys, values, strict=True))
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _value(node.left, names), _value(node.right, names)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.Call) and _is_plain_dict(node):
        return {str(item.arg): _value(item.value, names) for item in node.keywords}
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UnreadableError(ast.unparse(node)) from error


def _is_plain_dict(call: ast.Call) -> bool:
    named = not call.args and all(item.arg for item in call.keywords)
    return named and isinstance(call.func, ast.Name) and call.func.id == 'dict'


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        kept = {} if layer.get('_delete_') else merged
        merged = dict(kept)
        for key, value in layer.items():
            if key == '_delete_':
                continue
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            base = [merged[key]] if both else []
            merged[key] = _merge(*base, value) if isinstance(value, dict) else value
    return merged
