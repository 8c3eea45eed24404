"""Cuts large photographs into tiles, so that small objects keep their size."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .images import Facts, read_pixels
from .records import Crop, Notes, Record, TruthBox

SMALLEST = 32


def spans(length: int, tile: int, overlap: float = 0) -> list[tuple[int, int]]:
    """Cut a length into equal spans of about ``tile`` pixels that cover all of it.

    A fixed side would leave a strip at the far edge, too narrow to be a tile, and
    with it the objects there. So the side is what divides the length evenly.

    Args:
        length: Pixels to cover.
        tile: Pixels that a span shall have.
        overlap: Part of a span that it shares with the next.

    Returns:
        First pixel and the one behind the last, for each span.
    """
    # Fractions: two neighbours must round their common edge the same way.
    shared = Fraction(overlap).limit_denominator(1000)
    count = max(1, round((Fraction(length, tile) - shared) / (1 - shared)))
    side = length / (count - (count - 1) * shared)
    starts = [i * side * (1 - shared) for i in range(count)]
    return [(round(start), round(start + side)) for start in starts]


def cut(
    records: list[Record], facts: dict[str, Facts], tile: int, notes: Notes
) -> list[Record]:
    """Cut the images that are larger than a tile; their boxes go with them.

    An object belongs to the tile that its centre lies in, and is clipped to it, so
    that none is counted twice.

    Args:
        records: With clean boxes, in pixels.
        facts: The images as they are; the tiles are added.
        tile: Side in pixels that a tile shall have.
        notes: Told what is cut.

    Returns:
        One record for each tile, and those of smaller images as they were.
    """
    found = []
    for record in records:
        width, height = facts[record.name].size
        columns, rows = spans(width, tile), spans(height, tile)
        if len(columns) * len(rows) == 1:
            found.append(record)
            continue
        for top, bottom in rows:
            for left, right in columns:
                tile_of = _tile(record, (left, top, right, bottom), facts)
                size = (right - left, bottom - top)
                facts[tile_of.name] = replace(
                    facts[record.name], size=size, orientation=1
                )
                found.append(tile_of)
        problem = f'larger than tiles of {tile}: {len(columns)} x {len(rows)} of them'
        notes.add(record.name, problem, 'cut into tiles')
    return found


def _tile(
    record: Record, window: tuple[int, int, int, int], taken: Container[str]
) -> Record:
    left, top, right, bottom = window
    # The ending stays in the name: a.jpg and a.png may lie side by side.
    tile = f'{record.name}_x{left:05d}_y{top:05d}'
    while f'{tile}.png' in taken:
        # Somebody has a photograph of this name.
        tile += '_'
    boxes = []
    for box in record.boxes:
        x0, y0, x1, y1 = box.corners
        if left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom:
            corners = (
                max(x0, left) - left,
                max(y0, top) - top,
                min(x1, right) - left,
                min(y1, bottom) - top,
            )
            boxes.append(TruthBox(box.label, corners, box.ignore))
    crop = Crop(record.name, window)
    return replace(record, name=f'{tile}.png', boxes=boxes, crop=crop)


def write_tile(source: Path, window: tuple[int, int, int, int], target: Path) -> None:
    """Write one tile as PNG, with the pixels that mmdet reads.

    Args:
        source: The photograph.
        window: Left, top, right, bottom.
        target: Where the tile goes.

    Raises:
        OSError: If the photograph cannot be read or the tile cannot be written, also
            because there is something of that name.
    """
    left, top, right, bottom = window
    status = source.stat()
    pixels = _pixels(source, status.st_mtime_ns, status.st_ino)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open('xb') as file:
        Image.fromarray(pixels[top:bottom, left:right]).save(file, 'PNG')


@lru_cache(maxsize=1)
def _pixels(source: Path, *_: int) -> np.ndarray:
    """Read a photograph; its tiles are written one after the other."""
    return read_pixels(source)
