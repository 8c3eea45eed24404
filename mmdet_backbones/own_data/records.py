"""What is read from a folder, and what was found wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import printable

LEFT_OUT = 'left out'
# A file may hold a megabyte where a word should stand.
_LONGEST = 500


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
        problem: What it is; names and numbers of this one behind the first colon.
        done: What became of it.
        count: How often, in this file.
        place: Where in the file, the first time.
    """

    file: str
    problem: str
    done: str
    count: int = 1
    place: str = ''

    @property
    def kind(self) -> str:
        """What it is, without the names and numbers of this one."""
        return self.problem.partition(': ')[0]

    @property
    def example(self) -> str:
        """Where it is, with its own names and numbers."""
        where = f'{self.file}, {self.place}' if self.place else self.file
        detail = self.problem.partition(': ')[2]
        return f'{where}: {detail}' if detail else where


@dataclass
class Notes:
    """Collects the findings; the same one again in a file is counted."""

    findings: list[DataFinding] = field(default_factory=list)
    _places: dict[tuple[str, str, str], DataFinding] = field(default_factory=dict)
    _files: set[str] = field(default_factory=set)

    def add(
        self,
        file: str,
        problem: str,
        done: str = LEFT_OUT,
        count: int = 1,
        place: str = '',
    ) -> None:
        """Note a problem with a file, and what is done about it."""
        problem = problem[:_LONGEST]
        key = (file, problem, done)
        if key in self._places:
            self._places[key].count += count
            return
        self._files.add(file)
        file, problem, done, place = (
            printable(text, _LONGEST) for text in (file, problem, done, place)
        )
        finding = DataFinding(file, problem, done, count, place)
        self._places[key] = finding
        self.findings.append(finding)

    def mentions(self, file: str) -> bool:
        """Tell whether there is a finding about a file."""
        return file in self._files

    def worst(self) -> str:
        """Return the first findings in brackets, for a message."""
        if not self.findings:
            return ''
        told = [f'{f.file}: {f.problem}' for f in self.findings[:10]]
        more = len(self.findings) - len(told)
        return f' ({"; ".join(told)}{f"; {more} more" if more else ""})'


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message, which does not grow with their number."""
    told = ', '.join(printable(name, _LONGEST) for name in names[:most])
    return told if len(names) <= most else f'{told} and {len(names) - most} more'


def below(root: Path, path: Path) -> str:
    """Return a path below a folder, with forward slashes."""
    return path.relative_to(root).as_posix()
