"""A sheet of examples with their boxes, as mmdet sees them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import printable
from .images import read_pixels
from .records import Record

_COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080', '#9a6324')
# More could not be told from each other.
_MOST_BOXES = 5000
_SIDE, _GAP, _COLUMNS, _TITLE = 360, 12, 4, 20


def draw_sheet(
    paths: Mapping[str, Path],
    splits: dict[str, list[Record]],
    classes: tuple[str, ...],
    path: Path,
    seed: int = 0,
) -> None:
    """Draw some images of each split with their boxes.

    Args:
        paths: The images by the names of their records.
        splits: The records, with clean boxes.
        classes: In the order of their numbers, which gives the colours.
        path: The PNG to write.
        seed: Which images are drawn.
    """
    chosen = []
    for split, count in (('train', 8), ('val', 4), ('test', 4)):
        records = list(splits.get(split, []))
        random.Random(seed).shuffle(records)
        # Without boxes there is less to see.
        records.sort(key=lambda record: not record.boxes)
        chosen += [(split, record) for record in records[:count]]
    rows = -(-len(chosen) // _COLUMNS)
    width = min(len(chosen), _COLUMNS) * (_SIDE + _GAP) + _GAP
    line = _SIDE + _TITLE + _GAP
    font = ImageFont.load_default(13)
    sheet = Image.new('RGB', (width, rows * line + _GAP + _TITLE), 'white')
    _legend(sheet, classes, font)
    numbers = {name: i for i, name in enumerate(classes)}
    for i, (split, record) in enumerate(chosen):
        left = _GAP + i % _COLUMNS * (_SIDE + _GAP)
        top = _GAP + i // _COLUMNS * line
        title = f'{split}: {printable(Path(record.name).name)}'
        boxes = f' ({len(record.boxes)})'
        ImageDraw.Draw(sheet).text(
            (left, top), title[: 46 - len(boxes)] + boxes, 'black', font
        )
        sheet.paste(
            _example(paths[record.name], record, numbers, font), (left, top + _TITLE)
        )
    # It is looked at once: smaller would take most of the time of a small folder.
    sheet.save(path, compress_level=1)


def _legend(sheet: Image.Image, classes: tuple[str, ...], font: Any) -> None:
    pen, left = ImageDraw.Draw(sheet), float(_GAP)
    for i, name in enumerate(classes):
        place = (left, sheet.height - _TITLE)
        pen.text(place, printable(name)[:80], _COLOURS[i % len(_COLOURS)], font)
        left += font.getlength(printable(name)) + _GAP
        if left > sheet.width:
            break


def _example(
    path: Path, record: Record, numbers: Mapping[str, int], font: Any
) -> Image.Image:
    picture = Image.fromarray(read_pixels(path))
    scale = _SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]))
    pen = ImageDraw.Draw(picture)
    for box in record.boxes[:_MOST_BOXES]:
        colour = _COLOURS[numbers[box.label] % len(_COLOURS)]
        x0, y0, x1, y1 = (value * scale for value in box.corners)
        corners = (x0, y0, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1))
        pen.rectangle(corners, outline=colour, width=1 if box.ignore else 2)
        # Names on small boxes would hide what they name.
        if len(numbers) > 1 and len(record.boxes) <= 20:
            place = (x0 + 3, y0 + 1)
            pen.text(place, printable(box.label)[:80], colour, font, stroke_width=2,
                     stroke_fill='white')  # fmt: skip
    return picture
