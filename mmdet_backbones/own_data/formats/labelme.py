"""Reads folders that labelme wrote: one JSON for each image."""

from __future__ import annotations

import math
from typing import Any

from ..records import Annotations, Notes, Record, TruthBox
from ..scan import DataFiles, read_json, split_of
from ..values import number, size, text
from .pairing import Pairing, listed_classes


def read(found: DataFiles, notes: Notes) -> Annotations:
    """Read every JSON; the picture that may be inside it is not used."""
    pairing, records = Pairing(found, notes), []
    for name, why in found.broken.items():
        pairing.unusable(name, why, 'its JSON cannot be used')
    for name in found.kinds['labelme']:
        try:
            content = read_json(found.root / name)
        except (OSError, ValueError) as error:
            why = f'damaged JSON: {error}'
            pairing.unusable(name, why, 'its JSON cannot be used')
            continue
        named = content.get('imagePath')
        image = pairing.image(name, named if isinstance(named, str) else None)
        if image is None:
            continue
        boxes = []
        for i, shape in enumerate(content['shapes']):
            box = _box(shape)
            if isinstance(box, TruthBox):
                boxes.append(box)
            else:
                notes.add(name, box, 'shape dropped', place=f'shapes[{i}]')
        whole = None
        try:
            whole = size(content.get('imageWidth'), content.get('imageHeight'))
        except ValueError:
            notes.add(name, 'imageWidth and imageHeight that are no size',
                      'kept: the size is the image file')  # fmt: skip
        records.append(Record(image, name, boxes, split_of(image), whole))
    return Annotations(pairing.note_rest(records), listed_classes(found, notes))


def _box(shape: Any) -> TruthBox | str:
    """Return the box around a shape, or why there is none."""
    try:
        label, kind = text(shape['label']), text(shape.get('shape_type') or 'polygon')
        points = [(number(x), number(y)) for x, y in shape['points']]
    except (TypeError, ValueError, KeyError, AttributeError):
        return 'shape without label or points'
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if kind == 'circle' and len(points) == 2:
        radius = math.dist(*points)
        (x, y), outline = points[0], None
        return TruthBox(label, (x - radius, y - radius, x + radius, y + radius))
    if kind == 'rectangle' and len(points) >= 2:
        return TruthBox(label, (min(xs), min(ys), max(xs), max(ys)))
    drawn = kind in ('polygon', 'rotation') and len(points) >= 3
    if drawn or (kind == 'mask' and len(points) >= 2):
        flat = [value for point in points for value in point]
        outline = [flat] if drawn else None
        return TruthBox(label, (min(xs), min(ys), max(xs), max(ys)), outline=outline)
    return f"shape that encloses nothing: type '{kind}' with {len(points)} points"
