"""What the heads of a detector are told of strides and classes, and what changes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS

from ..arguments import arguments_of
from ..errors import UserError
from .neck_rules import Strides
from .tree import Part, Place, dotted, walk

# Values by place below ``model``.
Edits = dict[Place, Any]
# Arguments that hold strides, one per map.
_STRIDES = ('strides', 'featmap_strides', 'point_strides')
# Arguments in pixels of the image, chosen for the strides of the maps.
_PIXELS = ('regress_ranges', 'scale_ranges', 'base_edge_list')
_UNLIMITED = 1e4
_NO_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg')
# Class numbers that are not those of the data set's objects.
_OTHER_CLASSES = {'rpn_head', 'semantic_head', 'semantic_roi_extractor'}


def head_strides(model: Part) -> dict[str, list[float]]:
    """Strides that anchor generators, RoI extractors and heads are told.

    Args:
        model: ``model`` of a config.

    Returns:
        One number per map, by dotted key below ``model``.
    """
    return {
        dotted(*place, key): _one_each(values)
        for place, part in _head_parts(model)
        for key, values in _arguments_in(part, _STRIDES)
    }


def class_counts(model: Part) -> dict[Place, int]:
    """Number of classes of every box and mask head, by place below ``model``."""
    return {
        (*place, 'num_classes'): part['num_classes']
        for place, part in _head_parts(model)
        if 'num_classes' in part and _OTHER_CLASSES.isdisjoint(place)
    }


def class_edits(model: Part, count: int) -> Edits:
    """Set the number of classes in every box and mask head.

    Args:
        model: ``model`` of a config.
        count: Number of classes.

    Raises:
        UserError: If the detector has no head of that kind.
    """
    edits: Edits = dict.fromkeys(class_counts(model), count)
    # Region proposals have no classes.
    if not edits and not model.get('rpn_head'):
        raise UserError(
            f'{model.get("type")} has no box or mask head with num_classes: write '
            'the classes of its heads into the new config yourself'
        )
    return edits


def stride_edits(model: Part, old: Strides, new: Strides) -> Edits:
    """Follow the strides of the maps in anchor generators, RoI extractors and heads.

    Args:
        model: ``model`` of a config.
        old: Strides of the maps that its heads get now.
        new: Strides of those that they will get.

    Returns:
        Values by place; none if the strides stay.

    Raises:
        UserError: If a part has strides that have no place among the old ones.
    """
    if tuple(new) == tuple(old):
        return {}
    edits: Edits = {}
    unknown = []
    for place, part in _head_parts(model):
        for key, values in _arguments_in(part, _STRIDES):
            moved = _moved(_one_each(values), list(old), list(new))
            if moved is None:
                unknown.append(f'{dotted("model", *place)}.{key}={values}')
            elif moved != list(values):
                edits[(*place, key)] = moved
        # SOLO's ranges belong to its grids, which divide the image in any case.
        if len(old) == len(new) and 'num_grids' not in part:
            for key, value in _pixel_arguments(part, new[0] / old[0]):
                edits[(*place, key)] = value
    if unknown:
        raise UserError(
            f'the maps of the heads get the strides {new} instead of {old}, and it is '
            f'unknown what becomes of {"; ".join(unknown)}: give --strides so that the '
            'maps keep their strides, or take another backbone'
        )
    return edits


def _moved(
    given: list[float], old: list[float], new: list[float]
) -> list[float] | None:
    """The new strides of a part that has some of the old ones; None if it has others.

    It has all of them in either order, or the first ones, or any if each map stays.
    """
    first = len(given)
    for before, after in (
        (old, new),
        (old[::-1], new[::-1]),
        (old[:first], new[:first]),
    ):
        if given == before:
            return after
    if len(old) == len(new) and set(given) <= set(old):
        return [new[old.index(stride)] for stride in given]
    return None


def _pixel_arguments(part: Part, factor: float) -> Iterator[tuple[str, Any]]:
    """Arguments that count pixels, for strides that grow by a factor."""
    for key, value in _arguments_in(part, _PIXELS):
        yield key, _scaled(value, factor)
    anchors = str(part.get('type', '')).endswith('AnchorGenerator')
    if anchors and factor in (2, 4, 8):
        # Given in strides, so that anchors keep their sizes in pixels.
        for key in ('scales', 'octave_base_scale'):
            if part.get(key):
                yield key, _scaled(part[key], 1 / factor)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(item, factor) for item in value)
    if not 0 < value < _UNLIMITED:
        return value
    scaled = value * factor
    return int(scaled) if float(scaled).is_integer() else scaled


def _head_parts(model: Part) -> Iterator[tuple[Place, Part]]:
    """Every dict below the heads of a model, with its place."""
    for place, part in walk(model):
        if place and place[0] not in _NO_HEADS:
            yield place, part


def _one_each(values: Sequence[Any]) -> list[float]:
    """One stride per map, where width and height may have one each."""
    return [v[0] if isinstance(v, (list, tuple)) else v for v in values]


def _arguments_in(part: Part, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Those arguments of a part that are lists: as configured, or by its class."""
    for name in names:
        # A parent's default may stand for nothing here: RepPoints has strides of two
        # names.
        value = argument_of(part, name, inherited=False)
        if isinstance(value, (list, tuple)) and value:
            yield name, value


def argument_of(part: Mapping[str, Any], name: str, inherited: bool = True) -> Any:
    """An argument of a head, as configured or by default of its class.

    Args:
        part: Config of the head.
        name: Of the argument.
        inherited: Whether those count that the class hands on to its parents.

    Returns:
        Its value; None where there is no such argument, or no default.
    """
    given = part.get('type')
    # Only heads have such defaults; a generator is always told its strides.
    if name in part or not isinstance(given, str) or not given.endswith('Head'):
        return part.get(name)
    cls = MODELS.get(given if '.' in given else f'mmdet.{given}')
    if cls is None:
        return None
    known = arguments_of(cls)[0] if inherited else inspect.signature(cls).parameters
    parameter = known.get(name)
    if parameter is None or parameter.default is parameter.empty:
        return None
    return parameter.default
