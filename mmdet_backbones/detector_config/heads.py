"""What the heads of a detector are told of strides and classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS

Place = tuple[str | int, ...]


# Arguments that hold strides, one per map.
STRIDES = ('strides', 'featmap_strides', 'point_strides')


_NO_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg')


# Class numbers that are not those of the data set's objects.
OTHER_CLASSES = ('rpn_head', 'semantic_head', 'semantic_roi_extractor')


def head_strides(model: Mapping[str, Any]) -> dict[str, list[float]]:
    """Strides that anchor generators, RoI extractors and heads are told.

    Args:
        model: ``model`` of a config.

    Returns:
        One number per map, by dotted key below ``model``.
    """
    found = {}
    for place, part in head_parts(model, ()):
        for key, values in arguments_in(part, STRIDES).items():
            first = [v[0] if isinstance(v, (list, tuple)) else v for v in values]
            found['.'.join(map(str, (*place, key)))] = first
    return found


def class_counts(model: Mapping[str, Any]) -> dict[str, int]:
    """Number of classes of every box and mask head, by dotted key below ``model``."""
    return {
        '.'.join(map(str, (*place, 'num_classes'))): part['num_classes']
        for place, part in head_parts(model, ())
        if 'num_classes' in part and not set(place) & set(OTHER_CLASSES)
    }


def head_parts(part: Any, place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every dict below the heads of a model, with its place."""
    if isinstance(part, Mapping):
        if place:
            yield place, part
        for key, value in part.items():
            if not (len(place) == 0 and key in _NO_HEADS):
                yield from head_parts(value, (*place, key))
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from head_parts(value, (*place, index))


def arguments_in(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those arguments of a part: as configured, or its class's defaults."""
    found = {}
    for name in names:
        value = part.get(name, _default(part, name))
        if isinstance(value, (list, tuple)) and value:
            found[name] = value
    return found


def _default(part: Mapping[str, Any], name: str) -> Any:
    given = part.get('type')
    # Only heads have such defaults; a generator is always told its strides.
    if not isinstance(given, str) or not given.endswith('Head'):
        return None
    cls = MODELS.get(given if '.' in given else f'mmdet.{given}')
    if cls is None:
        return None
    parameter = inspect.signature(cls).parameters.get(name)
    return None if parameter is None else parameter.default
