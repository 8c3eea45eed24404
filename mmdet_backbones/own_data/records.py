"""What is read from a folder, and what was found wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEFT_OUT = 'left out'


@dataclass
class TruthBox:
    """One object, in pixels from the picture's upper left corner.

    Attributes:
        label: Its class, as the annotation names it.
        corners: Left, top, right, bottom; right and bottom are outside.
        ignore: Whether it counts neither as a hit nor as a miss.
        outline: Polygons [x0, y0, x1, y1, ...] or COCO's run lengths, if there are any.
    """

    label: str
    corners: tuple[float, float, float, float]
    ignore: bool = False
    outline: Any = None


@dataclass(frozen=True)
class Crop:
    """A part of an image.

    Attributes:
        name: The image.
        window: Left, top, right, bottom; right and bottom are outside.
    """

    name: str
    window: tuple[int, int, int, int]


@dataclass
class Record:
    """One image with its boxes.

    Attributes:
        name: The image, below the folder that was read.
        source: The annotation file, below that folder.
        boxes: As they were read.
        split: 'train', 'val', 'test' or None where nothing says.
        size: Width and height that the annotation gives; None if it gives none.
        relative: Whether the boxes are parts of width and height, as in YOLO.
        crop: Where it is cut from, if it is a tile.
    """

    name: str
    source: str
    boxes: list[TruthBox]
    split: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False
    crop: Crop | None = None


@dataclass
class Annotations:
    """All that one format's reader found.

    Attributes:
        records: One for each annotated image.
        classes: The folder's own list of classes; None if it has none.
    """

    records: list[Record]
    classes: tuple[str, ...] | None = None


@dataclass
class DataFinding:
    """Something that is not as it should be.

    Attributes:
        file: Below the folder.
        problem: What it is.
        done: What became of it.
        count: How often, in this file.
    """

    file: str
    problem: str
    done: str
    count: int = 1


@dataclass
class Notes:
    """Collects the findings; the same one again in a file is counted."""

    findings: list[DataFinding] = field(default_factory=list)
    _places: dict[tuple[str, str, str], DataFinding] = field(default_factory=dict)
    _files: set[str] = field(default_factory=set)

    def add(
        self, file: str, problem: str, done: str = LEFT_OUT, count: int = 1
    ) -> None:
        """Note a problem with a file, and what is done about it."""
        key = (printable(file), printable(problem), done)
        if key in self._places:
            self._places[key].count += count
            return
        self._files.add(key[0])
        self._places[key] = DataFinding(*key, count)
        self.findings.append(self._places[key])

    def mentions(self, file: str) -> bool:
        """Tell whether there is a finding about a file."""
        return printable(file) in self._files


def printable(text: str) -> str:
    """Return a file's name, or what a file says, without what a terminal obeys."""
    text = os.fsencode(text).decode('utf-8', 'replace')
    return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text)


def below(root: Path, path: Path) -> str:
    """Return a path below a folder, with forward slashes."""
    return path.relative_to(root).as_posix()
