"""Reads folders as YOLO's trainers do: a txt with parts of width and height."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError
from ..records import Annotations, Notes, Record, TruthBox
from ..scan import MOST_LIST, DataFiles, read_text, split_of
from ..values import number, whole
from .pairing import Pairing, listed_classes, yaml_classes, yaml_settings

_NO_LABELS = (
    'classes',
    'labels',
    'predefined_classes',
    'train',
    'val',
    'valid',
    'test',
)
_MOST_PLACES, _MOST_LINES = 1000, 20


def read(found: DataFiles, notes: Notes, given: tuple[str, ...] | None) -> Annotations:
    """Read every label file.

    Args:
        found: The folder's files.
        notes: Where problems go.
        given: Names of the class numbers, for a folder that lists none.

    Raises:
        UserError: If nothing says what the class numbers mean.
    """
    settings = yaml_settings(found, notes)
    if settings:
        classes: tuple[str, ...] | None = yaml_classes(*settings, notes)
    else:
        classes = listed_classes(found, notes) or given
    if not classes:
        raise UserError(
            f"'{found.root}' does not say what its class numbers mean (looked for "
            'data.yaml with names:, classes.txt, labels.txt, obj.names): name them in '
            f'order, with --classes a,b,c{notes.worst()}'
        )
    pairing, records = Pairing(found, notes), []
    for name in found.files['.txt']:
        stem = Path(name).stem
        no_label = stem in _NO_LABELS or 'readme' in stem.lower()
        if no_label and not found.of_stem(stem):
            continue
        try:
            lines = read_text(found.root / name).splitlines()
        except (OSError, ValueError) as error:
            pairing.unusable(name, str(error), 'its label file cannot be used')
            continue
        image = pairing.image(name)
        if image is not None:
            boxes = list(_boxes(lines, name, classes, notes))
            record = Record(image, name, boxes, split_of(image), relative=True)
            records.append(record)
    for image in pairing.rest():
        notes.add(image, 'no label file', 'kept as an image without objects')
        records.append(Record(image, image, [], split_of(image), relative=True))
    if settings:
        _set_splits(records, found, notes, *settings)
    return Annotations(records, tuple(dict.fromkeys(classes)))


def _boxes(
    lines: list[str], name: str, classes: tuple[str, ...], notes: Notes
) -> Iterator[TruthBox]:
    bad = 0
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            first, *rest = line.split()
            index, values = whole(first), [number(word) for word in rest]
            if len(values) < 4:
                raise ValueError
            # Five is a box with a score behind it; more are an outline.
            outline = len(values) >= 6
            if outline and len(values) % 2:
                raise ValueError
        except ValueError:
            bad += 1
            problem = f'line that is no box: line {i} is not a class and a box'
            if bad > _MOST_LINES:
                problem = 'line that is no box: more that are not a class and a box'
            notes.add(name, problem, 'line dropped')
            continue
        known = 0 <= index < len(classes)
        yield _box(classes[index] if known else f'number {index}', values, outline)


def _box(label: str, values: list[float], outline: bool) -> TruthBox:
    if outline:
        xs, ys = values[::2], values[1::2]
        return TruthBox(label, (min(xs), min(ys), max(xs), max(ys)), outline=[values])
    x, y, width, height = values[:4]
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return TruthBox(label, corners)


def _set_splits(
    records: list[Record],
    found: DataFiles,
    notes: Notes,
    name: str,
    content: dict[str, Any],
) -> None:
    """Take the splits from the YAML; folders' names count where it says nothing."""
    for split in ('train', 'val', 'test'):
        given = content.get(split)
        places = given if isinstance(given, list) else [given]
        texts = dict.fromkeys(p for p in places if isinstance(p, str) and p)
        for place in list(texts)[:_MOST_PLACES]:
            wanted = _images_of(place, found, Path(name).parent, content.get('path'))
            for record in records:
                if record.name in wanted:
                    record.split = split
            if not wanted and not any(record.split == split for record in records):
                notes.add(name, f'leads to no image: {split}: {place}', 'not used')


def _images_of(place: str, found: DataFiles, home: Path, base: Any) -> set[str]:
    """Return the images that one line of the YAML means; none outside the folder."""
    bases = [str(base)] if isinstance(base, str) else []
    for start in (*bases, '', '..'):
        # YOLO's own tools write ../train/images for what is beside the YAML.
        for form in (place, place.removeprefix('../')):
            path = os.path.normpath(os.path.join(found.root, home, start, form))
            try:
                inside = Path(path).relative_to(found.root).as_posix()
            except ValueError:
                continue
            if inside in found.files['.txt']:
                return _listed(Path(path), found)
            prefix = '' if inside == '.' else f'{inside}/'
            images = {image for image in found.images if image.startswith(prefix)}
            if images:
                return images
    return set()


def _listed(path: Path, found: DataFiles) -> set[str]:
    """Return the images of a list; its paths may be those of another machine."""
    images, listed = set(found.images), set()
    try:
        lines = read_text(path, MOST_LIST).splitlines()
    except (OSError, ValueError):
        # The caller tells that it leads to no image.
        return set()
    for line in lines:
        parts = PurePosixPath(line.strip().replace('\\', '/')).parts
        # No path has more parts, and a line of 32 MiB would be read as many times.
        ends = ('/'.join(parts[i:]) for i in range(max(0, len(parts) - 64), len(parts)))
        listed |= {end for end in ends if end in images}
    return listed
