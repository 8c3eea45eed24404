"""What changes in the heads of a detector with the strides of their maps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS

from ..detector_config.neck_rules import Strides
from ..errors import UserError
from .base import Base
from .level_plan import Edits

Place = tuple[str | int, ...]
# Arguments that hold strides, one per map.
_STRIDES = ('strides', 'featmap_strides', 'point_strides')
# Arguments in pixels of the image, chosen for the strides of the base.
_PIXELS = ('regress_ranges', 'scale_ranges', 'base_edge_list')
_NO_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg')
# Class numbers that are not those of the data set's objects.
_OTHER_CLASSES = ('rpn_head', 'semantic_head', 'semantic_roi_extractor')
_UNLIMITED = 1e4


def stride_edits(base: Base, new: Strides) -> Edits:
    """Follow the strides in anchor generators, RoI extractors and heads.

    Args:
        base: The detector.
        new: Strides of the maps that its heads get now.

    Returns:
        Values by place below ``model``; none if the strides stay.

    Raises:
        UserError: If a part has strides that have no place among those of the base.
    """
    old = base.output_strides
    if tuple(new) == tuple(old):
        return {}
    edits: Edits = {}
    unknown = []
    for place, part in _parts(base.model, ()):
        for key, values in _arguments(part, _STRIDES).items():
            moved = _moved(values, old, new)
            if moved is None:
                unknown.append(f'{_dotted(place)}.{key}={values}')
            elif moved != list(values):
                edits[(*place, key)] = moved
        edits.update(_pixel_edits(place, part, old, new))
    if unknown:
        raise UserError(
            f'the maps of the heads get the strides {new} instead of {old}, and it is '
            f'unknown what becomes of {"; ".join(unknown)}: give --strides so that the '
            'maps keep their strides, or take another backbone'
        )
    return edits


def head_strides(model: Mapping[str, Any]) -> dict[str, list[float]]:
    """Strides that anchor generators, RoI extractors and heads are told.

    Args:
        model: ``model`` of a config.

    Returns:
        One number per map, by dotted key below ``model``.
    """
    found = {}
    for place, part in _parts(model, ()):
        for key, values in _arguments(part, _STRIDES).items():
            first = [v[0] if isinstance(v, (list, tuple)) else v for v in values]
            found['.'.join(map(str, (*place, key)))] = first
    return found


def class_edits(base: Base, count: int) -> Edits:
    """Set the number of classes in every box and mask head.

    Args:
        base: The detector.
        count: Number of classes.

    Returns:
        Values by place below ``model``.

    Raises:
        UserError: If the detector has no head of that kind.
    """
    edits = {
        (*place, 'num_classes'): count
        for place, part in _parts(base.model, ())
        if 'num_classes' in part and not set(place) & set(_OTHER_CLASSES)
    }
    # Region proposals have no classes.
    if not edits and not base.model.get('rpn_head'):
        raise UserError(
            f'{base.model.get("type")} has no box or mask head with num_classes: write '
            'the classes of its heads into the new config yourself'
        )
    return edits


def class_counts(model: Mapping[str, Any]) -> dict[str, int]:
    """Number of classes of every box and mask head, by dotted key below ``model``."""
    return {
        '.'.join(map(str, (*place, 'num_classes'))): part['num_classes']
        for place, part in _parts(model, ())
        if 'num_classes' in part and not set(place) & set(_OTHER_CLASSES)
    }


def _parts(part: Any, place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every dict below the heads of a model, with its place."""
    if isinstance(part, Mapping):
        if place:
            yield place, part
        for key, value in part.items():
            if not (len(place) == 0 and key in _NO_HEADS):
                yield from _parts(value, (*place, key))
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from _parts(value, (*place, index))


def _arguments(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
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


def _moved(values: Sequence[Any], old: Strides, new: Strides) -> list[Any] | None:
    """Strides of the base replaced by the new ones; None if some are no strides."""
    given = [v[0] if isinstance(v, (list, tuple)) else v for v in values]
    if given == list(old):
        return list(new)
    if given == list(old)[::-1]:
        return list(new)[::-1]
    if given == list(old)[: len(given)]:
        return list(new)[: len(given)]
    if len(old) == len(new) and all(value in old for value in given):
        return [new[old.index(value)] for value in given]
    return None


def _pixel_edits(
    place: Place, part: Mapping[str, Any], old: Strides, new: Strides
) -> Edits:
    factor = new[0] / old[0]
    # SOLO's ranges belong to its grids, which divide the image whatever the strides.
    if len(old) != len(new) or 'num_grids' in part:
        return {}
    edits: Edits = {
        (*place, key): _scaled(value, factor)
        for key, value in _arguments(part, _PIXELS).items()
    }
    # Anchors keep their sizes in pixels.
    scales = part.get('scales')
    anchors = str(part.get('type', '')).endswith('AnchorGenerator')
    if anchors and isinstance(scales, (list, tuple)) and factor in (2, 4, 8):
        edits[(*place, 'scales')] = [_whole(scale / factor) for scale in scales]
    octave = part.get('octave_base_scale')
    if anchors and octave and factor in (2, 4, 8):
        edits[(*place, 'octave_base_scale')] = _whole(octave / factor)
    return edits


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_scaled(item, factor) for item in value)
    limited = 0 < value < _UNLIMITED
    return _whole(value * factor) if limited else value


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _dotted(place: Place) -> str:
    return '.'.join(map(str, ('model', *place)))
