"""What a person is told of the data set: figures and findings."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

from ..errors import printable
from .images import Facts
from .placing import REPORT, TOOL
from .records import DataFinding, Record

_MOST_LINES = 20
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class SplitFigures:
    """What a split holds.

    Attributes:
        images, boxes: How many.
        without_boxes: Images that show nothing.
        classes: Boxes by class.
        widths, heights: Of the images: smallest, median, largest, in pixels.
        box_sides: Square roots of the boxes' areas: smallest, median, largest.
        small, medium, large: Boxes, as COCO divides them at 32 and 96 pixels.
    """

    images: int
    boxes: int
    without_boxes: int
    classes: dict[str, int]
    widths: tuple[float, float, float]
    heights: tuple[float, float, float]
    box_sides: tuple[float, float, float]
    small: int
    medium: int
    large: int


def figures(
    records: list[Record], facts: dict[str, Facts], classes: tuple[str, ...]
) -> SplitFigures:
    """Count what a split holds."""
    sizes = [facts[record.name].size for record in records]
    boxes = [box for record in records for box in record.boxes]
    counts = Counter(box.label for box in boxes)
    corners = [box.corners for box in boxes]
    sides = [((x1 - x0) * (y1 - y0)) ** 0.5 for x0, y0, x1, y1 in corners]
    small, large = sum(s < 32 for s in sides), sum(s >= 96 for s in sides)
    return SplitFigures(
        images=len(records),
        boxes=len(boxes),
        without_boxes=sum(not record.boxes for record in records),
        classes={name: counts[name] for name in classes},
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
        box_sides=_spread(sides),
        small=small,
        medium=len(sides) - small - large,
        large=large,
    )


def _spread(values: list[Any]) -> tuple[float, float, float]:
    if not values:
        return (0, 0, 0)
    return tuple(round(v, 1) for v in (min(values), median(values), max(values)))


@dataclass(frozen=True)
class DataReport:
    """A finished data set.

    Attributes:
        out: Where it is.
        format: Of the folder it was made from.
        classes: In the order of their numbers.
        masks: Whether every object has an outline.
        splits: What each holds.
        findings: All that was not as it should be.
    """

    out: Path
    format: str
    classes: tuple[str, ...]
    masks: bool
    splits: dict[str, SplitFigures]
    findings: list[DataFinding]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        content = asdict(self) | dict(
            out=printable(str(self.out), _LONGEST_PATH), tool=TOOL
        )
        content['splits'] = {name: asdict(s) for name, s in self.splits.items()}
        return content

    def table(self) -> Table:
        """Return figures and findings in one table of a length that can be read."""
        table = Table(
            title=Text(
                f'{printable(str(self.out), _LONGEST_PATH)}, from {self.format}'
            ),
            title_justify='left',
        )
        table.add_column('what', overflow='fold')
        table.add_column('train / file', overflow='fold')
        table.add_column('val / what was done', overflow='fold')
        columns = [_lines(self.splits[split]) for split in ('train', 'val')]
        for what, value in columns[0].items():
            table.add_row(*map(Text, (what, value, columns[1][what])))
        table.add_section()
        for finding in _each_kind(self.findings):
            times = f' ({finding.count} times)' if finding.count > 1 else ''
            place = f', {finding.place}' if finding.place else ''
            row = (finding.problem, finding.file + place, finding.done + times)
            table.add_row(*map(Text, row))
        more = len(self.findings) - _MOST_LINES
        if more > 0:
            where = printable(str(self.out / REPORT), _LONGEST_PATH)
            table.add_row(*map(Text, (f'{more} more', where, 'has all of them')))
        if not self.findings:
            table.add_row('nothing to find fault with', '', '')
        return table


def _each_kind(findings: list[DataFinding]) -> list[DataFinding]:
    """Return so many findings as can be read, some of every kind."""
    kinds: dict[str, list[DataFinding]] = defaultdict(list)
    for finding in sorted(findings, key=lambda f: (f.problem, f.file)):
        kinds[finding.problem.partition(':')[0]].append(finding)
    ranks = {id(f): rank for kind in kinds.values() for rank, f in enumerate(kind)}
    chosen = sorted(findings, key=lambda f: (ranks[id(f)], f.problem))[:_MOST_LINES]
    return sorted(chosen, key=lambda f: (f.problem, f.file))


def _lines(split: SplitFigures) -> dict[str, str]:
    def of(spread: tuple[float, float, float]) -> str:
        return f'{spread[0]:g} to {spread[2]:g}, median {spread[1]:g}'

    classes = list(split.classes.items())
    named, rest = classes[:_MOST_LINES], classes[_MOST_LINES:]
    return {
        'images': str(split.images),
        'images without boxes': str(split.without_boxes),
        'boxes': str(split.boxes),
        **{f'class {printable(name)}': str(n) for name, n in named},
        **({'other classes': str(sum(n for _, n in rest))} if rest else {}),
        'width of images': of(split.widths),
        'height of images': of(split.heights),
        'side of boxes': of(split.box_sides),
        'boxes below 32, to 96, above': f'{split.small}, {split.medium}, {split.large}',
    }
