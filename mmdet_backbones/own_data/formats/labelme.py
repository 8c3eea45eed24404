"""Reads folders that labelme wrote: one JSON for each image."""

from __future__ import annotations

import math
from typing import Any

from ..records import Annotations, Notes, Record, TruthBox
from ..scan import DataFiles, read_json, split_of
from .pairing import Pairing, listed_classes


def read(found: DataFiles, notes: Notes) -> Annotations:
    """Read every JSON; the picture that may be inside it is not used."""
    pairing, records = Pairing(found, notes), []
    for name in found.broken:
        notes.add(name, 'empty file' if not _size(found, name) else 'damaged JSON')
        for broken in found.stems.get(name.rsplit('/', 1)[-1][:-5], []):
            notes.add(broken, 'its JSON cannot be used')
    for name in found.kinds['labelme']:
        content = read_json(found.root / name)
        named = content.get('imagePath')
        image = pairing.image(name, named if isinstance(named, str) else None)
        if image is None:
            continue
        boxes = []
        for shape in content['shapes']:
            box = _box(shape)
            if isinstance(box, TruthBox):
                boxes.append(box)
            else:
                notes.add(name, box, 'shape dropped')
        size = tuple(content.get(f'image{side}') for side in ('Width', 'Height'))
        whole = size if all(isinstance(v, int) and v > 0 for v in size) else None
        records.append(Record(image, name, boxes, split_of(image), whole))
    return Annotations(pairing.note_rest(records), listed_classes(found))


def _size(found: DataFiles, name: str) -> int:
    return (found.root / name).stat().st_size


def _box(shape: Any) -> TruthBox | str:
    """Return the box around a shape, or why there is none."""
    try:
        label, kind = str(shape['label']), shape.get('shape_type') or 'polygon'
        points = [(float(x), float(y)) for x, y in shape['points']]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return 'shape without label or points'
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if kind == 'circle' and len(points) == 2:
        radius = math.dist(*points)
        (x, y), outline = points[0], None
        return TruthBox(label, (x - radius, y - radius, x + radius, y + radius))
    if kind == 'rectangle' and len(points) >= 2:
        return TruthBox(label, (min(xs), min(ys), max(xs), max(ys)))
    if kind in ('polygon', 'mask') and len(points) >= (3 if kind == 'polygon' else 2):
        flat = [value for point in points for value in point]
        outline = [flat] if kind == 'polygon' else None
        return TruthBox(label, (min(xs), min(ys), max(xs), max(ys)), outline=outline)
    return f'shape of type {kind!r} with {len(points)} points encloses nothing'
