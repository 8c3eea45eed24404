"""What a person is told of the data set: figures and findings."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..commands import command
from ..errors import printable
from .images import Facts
from .placing import REPORT, TOOL
from .records import DataFinding, Record

#: A backbone that starts from pretrained weights, in the config that is swapped.
ADVERTISED = 'timm/res2net50_26w_4s'
_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
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
        not_looked_for: What is not among the findings because a package is missing.
    """

    out: Path
    format: str
    classes: tuple[str, ...]
    masks: bool
    splits: dict[str, SplitFigures]
    findings: list[DataFinding]
    not_looked_for: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        content = asdict(self) | dict(
            out=printable(str(self.out), _LONGEST_PATH), tool=TOOL
        )
        content['splits'] = {name: asdict(s) for name, s in self.splits.items()}
        return content

    def table(self) -> Group:
        """Return the figures, and one entry for each kind of finding."""
        return Group(self._figures(), *self._findings(), *self.not_looked_for)

    def _figures(self) -> Table:
        # Text: what stands in brackets in a name is no order to rich.
        title = f'{printable(str(self.out), _LONGEST_PATH)}, from {self.format}'
        table = Table(title=Text(title), title_justify='left')
        table.add_column('what', overflow='fold')
        columns = [_lines(split) for split in self.splits.values()]
        for name in self.splits:
            table.add_column(name, overflow='fold')
        for what in columns[0]:
            table.add_row(*map(Text, (what, *(column[what] for column in columns))))
        return table

    def _findings(self) -> list[RenderableType]:
        kinds = _kinds(self.findings)
        if not kinds:
            return [Text('nothing to find fault with')]
        where = printable(str(self.out / REPORT), _LONGEST_PATH)
        table = Table.grid(padding=(0, 1))
        table.add_column(justify='right')
        table.add_column(overflow='fold')
        for found in kinds[:_MOST_LINES]:
            what = f'{found[0].kind} -> {found[0].done}\n'
            example = Text(f'such as {found[0].example}', 'dim')
            table.add_row(Text(f'{_times(found)} x'), Text(what).append(example))
        rest = kinds[_MOST_LINES:]
        if rest:
            more = sum(map(_times, rest))
            table.add_row(Text(f'{more} x'), Text(f'{len(rest)} more kinds'))
        title = 'not as it should be, the first of each kind (all are in {}):'
        return [Text(title.format(where), overflow='fold'), table]


def next_steps(report: DataReport) -> str:
    """Return the commands that lead from a data set to a tested detector."""
    out = printable(shlex.quote(str(report.out)), _LONGEST_PATH)
    sheet = printable(str(report.out / 'examples.png'), _LONGEST_PATH)
    lines = (
        f'Look at {sheet}. Then:',
        f'{command("swap")} \\',
        f'    {_BASE} \\',
        f'    {ADVERTISED} --data {out} -o mine.py',
        f'{command("train")} mine.py',
        'and, with the checkpoint that it names at its end:',
        f'{command("test")} mine.py CHECKPOINT',
    )
    return '\n'.join(lines)


def _times(found: list[DataFinding]) -> int:
    return sum(finding.count for finding in found)


def _kinds(findings: list[DataFinding]) -> list[list[DataFinding]]:
    """Return the findings by kind, what costs most images and boxes first."""
    kinds: dict[tuple[str, str], list[DataFinding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind, finding.done].append(finding)
    return sorted(
        kinds.values(),
        key=lambda found: (
            found[0].done.startswith('kept'),
            -_times(found),
            found[0].kind,
        ),
    )


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
