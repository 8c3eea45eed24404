"""Boxes in one file: JSON lines, CSV, or COCO's format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.detections import Detections
from .frames import Frame
from .lines import LineFile

_COLUMNS = ('image', 'frame', 'time', 'width', 'height', 'class', 'score',
            'x1', 'y1', 'x2', 'y2')  # fmt: skip


def short(value: np.floating) -> float:
    """Return a float32 with the few digits that tell it from others."""
    return float(str(np.float32(value)))


def boxes_of(found: Detections) -> Iterator[tuple[str, float, list[float]]]:
    """Yield class, score, and left, top, right and bottom of every box."""
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        yield found.names[label], short(score), [short(value) for value in box]


def to_dict(frame: Frame, found: Detections) -> dict[str, Any]:
    """Return what ``json.dumps`` takes of one image."""
    width, height = frame.size
    film = {} if frame.number is None else dict(frame=frame.number, time=frame.time)
    boxes = [
        {'class': name, 'score': score, 'box': box}
        for name, score, box in boxes_of(found)
    ]
    return dict(image=frame.shown, **film, width=width, height=height, boxes=boxes)


class JsonLines:
    """One line for each image.

    Args:
        write: Takes whole lines.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write

    def add(self, frame: Frame, found: Detections) -> None:
        """Write one image."""
        self._write(f'{json.dumps(to_dict(frame, found))}\n')

    def end(self) -> None:
        """Nothing stands below the last line."""


class CsvTable:
    """One line for each box.

    Args:
        write: Takes whole lines.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        write(_row(_COLUMNS))

    def add(self, frame: Frame, found: Detections) -> None:
        """Write the boxes of one image."""
        number = '' if frame.number is None else frame.number
        time = '' if frame.time is None else frame.time
        first = (frame.shown, number, time, *frame.size)
        rows = [_row((*first, c, s, *box)) for c, s, box in boxes_of(found)]
        self._write(''.join(rows))

    def end(self) -> None:
        """Nothing stands below the last line."""


def _row(values: tuple) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(values)
    return text.getvalue()


class CocoData:
    """A data set in COCO's format, whose annotations have scores.

    Args:
        write: Takes whole lines.
        names: Of all classes, which get numbers from 1.
    """

    def __init__(self, write: Callable[[str], Any], names: tuple[str, ...]) -> None:
        self._write = write
        self._images: list[dict[str, Any]] = []
        self._names = names
        self._list = _JsonList(write)
        write('{"annotations": [\n')

    def add(self, frame: Frame, found: Detections) -> None:
        """Write the boxes of one image."""
        width, height = frame.size
        number = len(self._images) + 1
        entry = dict(id=number, file_name=frame.name, width=width, height=height)
        self._images.append(entry)
        categories = range(1, len(found.names) + 1)
        self._list.add(
            dict(id=self._list.count + i, **result, area=_area(result), iscrowd=0)
            for i, result in enumerate(_results(found, number, categories), 1)
        )

    def end(self) -> None:
        """Write images and classes, which are known by now."""
        categories = [dict(id=i, name=name) for i, name in enumerate(self._names, 1)]
        self._list.end()
        self._write(
            f'],\n"images": {json.dumps(self._images)},\n'
            f'"categories": {json.dumps(categories)}}}\n'
        )


class CocoResults:
    """A list of results, as COCO's evaluation takes them.

    Args:
        write: Takes whole lines.
        images: Id by name.
        categories: Id by class.
    """

    def __init__(
        self,
        write: Callable[[str], Any],
        images: Mapping[str, Any],
        categories: Mapping[str, Any],
    ) -> None:
        self._write, self._images, self._categories = write, images, categories
        self._list = _JsonList(write)
        write('[\n')

    def add(self, frame: Frame, found: Detections) -> None:
        """Write the boxes of one image."""
        numbers = [self._categories.get(name) for name in found.names]
        self._list.add(_results(found, self._images[frame.name], numbers))

    def end(self) -> None:
        """End the list."""
        self._list.end()
        self._write(']\n')


class _JsonList:
    """Entries with commas between them, of which the last has none."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self.count = 0

    def add(self, entries: Iterator[dict[str, Any]]) -> None:
        lines = [json.dumps(entry) for entry in entries]
        if lines:
            # The line before may be the last one; its comma comes with the next.
            before = ',\n' if self.count else ''
            self._write(before + ',\n'.join(lines))
            self.count += len(lines)

    def end(self) -> None:
        self._write('\n' if self.count else '')


def _results(
    found: Detections, image: Any, categories: Any
) -> Iterator[dict[str, Any]]:
    for label, (_, score, box) in zip(found.labels, boxes_of(found), strict=True):
        x0, y0, x1, y1 = box
        size = [x1 - x0, y1 - y0]
        yield dict(image_id=image, category_id=categories[label],
                   bbox=[x0, y0, *size], score=score)  # fmt: skip


def _area(result: Mapping[str, Any]) -> float:
    return result['bbox'][2] * result['bbox'][3]


class TableFile:
    """One of these tables in a file.

    Args:
        file: Open.
        table: Writes to it.
    """

    def __init__(self, file: LineFile, table: Any) -> None:
        self._file, self._table = file, table
        self.add = table.add
        self.left = file.partial

    def close(self) -> list[Path]:
        """Complete the file; return it."""
        self._table.end()
        self._file.close()
        return [self._file.path]

    def leave(self) -> None:
        """Keep the lines that there are."""
        self._file.leave()
