"""Which boxes are good, and where they lie in the picture that mmdet reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .images import Facts
from .outlines import Turn, outline_in
from .records import Notes, Record, TruthBox

_DROPPED = 'box dropped'


@dataclass(frozen=True)
class ClassRule:
    """Which classes count, and under which name.

    Attributes:
        listed: The classes there may be; None for any.
        merged: The one name that all of them get; None to keep theirs.
    """

    listed: tuple[str, ...] | None
    merged: str | None

    def name(self, label: str) -> str | None:
        """Return the class of a label, None if it does not count."""
        if not label or (self.listed is not None and label not in self.listed):
            return None
        return self.merged or label


def clean(
    record: Record, facts: Facts, rule: ClassRule, notes: Notes
) -> list[TruthBox] | None:
    """Return the boxes of an image that a detector can learn from.

    Args:
        record: The image as it was annotated.
        facts: The image as it is.
        rule: The classes.
        notes: Where every box that is changed or dropped is told.

    Returns:
        Boxes in pixels of the picture as mmdet reads it; None if it is not certain
        where they lie, and the image is of no use.
    """
    turn = _turn(record, facts, notes)
    if turn is None:
        return None
    boxes = []
    for box in record.boxes:
        label = rule.name(box.label)
        if label is None:
            what = box.label or 'without a name'
            _note(record, notes, f'class that is not listed: {what}')
            continue
        fault = _fault(*box.corners)
        if fault:
            _note(record, notes, fault)
            continue
        corners = _corners(box, turn)
        inside = _inside(corners, facts.size, record, notes)
        if inside is not None:
            outline = _outline(box.outline, turn, facts, record, notes)
            boxes.append(TruthBox(label, inside, box.ignore, outline))
    return boxes


def _note(record: Record, notes: Notes, problem: str, done: str = _DROPPED) -> None:
    """Note a problem; a file of many images says in which one it is."""
    own = PurePosixPath(record.source).stem == PurePosixPath(record.name).stem
    notes.add(record.source, problem, done, place='' if own else record.name)


def _outline(
    outline: Any, turn: Turn, facts: Facts, record: Record, notes: Notes
) -> Any:
    try:
        return outline_in(outline, turn, facts.size)
    except ValueError as error:
        _note(record, notes, f'outline that cannot be drawn: {error}', 'box kept')
        return None


def _turn(record: Record, facts: Facts, notes: Notes) -> Turn | None:
    """Return how a point of the annotation becomes one of the picture."""
    width, height = facts.size
    same = record.size in (None, facts.size)
    name = f'EXIF rotation (orientation {facts.orientation})'
    if not same and record.size != facts.stored:
        given = f'{record.size[0]} x {record.size[1]}' if record.size else ''
        notes.add(
            record.name,
            'annotation was drawn on another size than the image has: '
            f'{record.source} was drawn on {given} pixels, it has {width} x {height}',
        )
        return None
    if not same:
        notes.add(record.name, name, 'kept: boxes turned with the picture')
        return {
            5: lambda x, y: (y, x),
            6: lambda x, y: (width - y, x),
            7: lambda x, y: (width - y, height - x),
            8: lambda x, y: (y, height - x),
        }[facts.orientation]
    if facts.orientation != 1:
        notes.add(record.name, name, 'kept: boxes are of the turned picture')
    if record.relative:
        return lambda x, y: (x * width, y * height)
    return lambda x, y: (x, y)


def _fault(x0: float, y0: float, x1: float, y1: float) -> str:
    text = f': {x0:g}, {y0:g}, {x1:g}, {y1:g}'
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return 'box that is not four numbers'
    if x1 < x0 or y1 < y0:
        return 'inverted box' + text
    return 'empty box' + text if x1 == x0 or y1 == y0 else ''


def _corners(box: TruthBox, turn: Turn) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.corners
    (a, b), (c, d) = turn(x0, y0), turn(x1, y1)
    # A turn exchanges corners.
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _inside(
    corners: tuple[float, float, float, float],
    size: tuple[int, int],
    record: Record,
    notes: Notes,
) -> tuple[float, float, float, float] | None:
    """Return a box clipped to the picture; None, and a note, if nothing is left."""
    (x0, y0, x1, y1), (width, height) = corners, size
    text = f': {x0:g}, {y0:g}, {x1:g}, {y1:g}'
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        _note(record, notes, 'box outside the image' + text)
        return None
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    # Rounding of half a pixel is no mistake of anybody's.
    if max(abs(a - b) for a, b in zip(corners, inside, strict=True)) > 1:
        _note(record, notes, 'box reaches out of the image' + text, 'box clipped')
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        _note(record, notes, 'box of less than a pixel' + text)
        return None
    return inside
