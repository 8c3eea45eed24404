"""What changes in the heads of a detector with the strides of their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..detector_config.heads import (
    OTHER_CLASSES,
    STRIDES,
    Place,
    arguments_in,
    head_parts,
)
from ..detector_config.neck_rules import Strides
from ..errors import UserError
from .base import Base
from .level_plan import Edits

# Arguments in pixels of the image, chosen for the strides of the base.
_PIXELS = ('regress_ranges', 'scale_ranges', 'base_edge_list')
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
    for place, part in head_parts(base.model, ()):
        for key, values in arguments_in(part, STRIDES).items():
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
        for place, part in head_parts(base.model, ())
        if 'num_classes' in part and not set(place) & set(OTHER_CLASSES)
    }
    # Region proposals have no classes.
    if not edits and not base.model.get('rpn_head'):
        raise UserError(
            f'{base.model.get("type")} has no box or mask head with num_classes: write '
            'the classes of its heads into the new config yourself'
        )
    return edits


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
        for key, value in arguments_in(part, _PIXELS).items()
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
