"""What a test says of each class: as a table, and as data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import printable

FILE = 'classes.json'
# More lines scroll what stands above them out of sight.
_MOST_LINES, _BEST = 40, 10
_LONGEST_NAME = 40
# It is shown if it is another number than AP.
_ALL, _SEEN = 'AP all', 0.0005
_COLUMNS = {
    'AP': 'ap',
    _ALL: 'ap_all',
    'AP50': 'ap50',
    'AP75': 'ap75',
    'recall': 'recall',
    'images': 'images',
    'boxes': 'boxes',
}


@dataclass(frozen=True)
class ClassFigures:
    """How well one class was found; the mean over the classes is mmdet's metric.

    Attributes:
        name: Of the class.
        ap: Average precision over all IoU thresholds, of the 100 best boxes in an
            image; None if no box is of the class.
        ap50: At the IoU threshold 0.5, of as many boxes as ``proposal_nums`` says at
            its third place; None also if that is none of the thresholds.
        ap75: At 0.75.
        ap_all: As ``ap``, of as many boxes as ``proposal_nums`` allows.
        recall: Average recall over all IoU thresholds, of as many.
        images: Images with such a box.
        boxes: Such boxes, without those that count neither as hit nor as miss.
    """

    name: str
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_all: float | None
    recall: float | None
    images: int
    boxes: int


def figures_of(evaluator: Any) -> list[ClassFigures]:
    """Take the figures of each class from an evaluator of pycocotools' kind.

    Args:
        evaluator: That has accumulated, by category.

    Returns:
        In the order of the category numbers.
    """
    params = evaluator.params
    # Of all areas: (thresholds, recalls, classes, numbers of detections).
    precision = evaluator.eval['precision'][:, :, :, 0]
    recall = evaluator.eval['recall'][:, :, 0, -1]
    # pycocotools' summary takes these.
    hundred = params.maxDets.index(100) if 100 in params.maxDets else -1
    third = 2 if len(params.maxDets) > 2 else -1
    near = [np.isclose(params.iouThrs, threshold) for threshold in (0.5, 0.75)]
    return [
        replace(
            row,
            ap=_mean(precision[:, :, place, hundred]),
            ap50=_mean(precision[near[0], :, place, third]),
            ap75=_mean(precision[near[1], :, place, third]),
            ap_all=_mean(precision[:, :, place, -1]),
            recall=_mean(recall[:, place]),
        )
        for place, row in enumerate(
            nothing_found(evaluator.cocoGt, params.catIds, params.imgIds)
        )
    ]


def nothing_found(
    truth: Any, categories: Iterable[int], images: Iterable[int]
) -> list[ClassFigures]:
    """Return the figures of classes of which no box was found.

    Args:
        truth: Of pycocotools' kind.
        categories: Their numbers.
        images: In which they were looked for.
    """
    boxes: dict[int, list[int]] = {number: [] for number in categories}
    wanted = set(images)
    for entry in truth.anns.values():
        counts = not entry.get('iscrowd') and entry['image_id'] in wanted
        if counts and entry['category_id'] in boxes:
            boxes[entry['category_id']].append(entry['image_id'])
    rows = []
    for number, found in boxes.items():
        name, value = str(truth.cats[number]['name']), 0.0 if found else None
        count = len(set(found)), len(found)
        rows.append(ClassFigures(name, value, value, value, value, value, *count))
    return rows


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of what could be measured, which is not -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def class_figures(runner: Runner) -> dict[str, list[ClassFigures]]:
    """Return what the test that a Runner ended says of the classes.

    Args:
        runner: After its test.

    Returns:
        By what was measured: ``'bbox'``, ``'segm'``. Nothing where the metric measures
        no classes, or in a process that is not the main one.
    """
    found: dict[str, list[ClassFigures]] = {}
    for metric in runner.test_evaluator.metrics:
        found |= getattr(metric, 'class_figures', {})
    return found


def to_dict(figures: dict[str, list[ClassFigures]]) -> dict[str, Any]:
    """Return the figures as JSON can hold them."""
    return {kind: [asdict(row) for row in rows] for kind, rows in figures.items()}


def tell_classes(runner: Runner) -> None:
    """Print the figures of the classes, and write all of them beside the log.

    Args:
        runner: After its test. Only its main process does something.
    """
    figures = class_figures(runner)
    if not figures or not is_main_process():
        return
    path = Path(runner.log_dir, FILE)
    path.write_text(json.dumps(to_dict(figures), indent=1) + '\n')
    for kind, rows in figures.items():
        Console().print(class_table(rows, kind, str(path)))


def class_table(
    figures: list[ClassFigures], kind: str = 'bbox', file: str = FILE
) -> RenderableType:
    """Lay out the figures, the best class first and the worst last.

    Args:
        figures: Of the classes, in any order.
        kind: What was measured.
        file: That has all of them, for those that are too many for a terminal.
    """
    measured = [row for row in figures if row.ap is not None]
    ordered = sorted(measured, key=lambda row: (-(row.ap or 0), row.name))
    table = Table(
        title=f'{kind}, the best class first', title_justify='left', box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column('class', overflow='fold', min_width=5)
    crowded = any(abs((row.ap_all or 0) - (row.ap or 0)) > _SEEN for row in measured)
    columns = {k: v for k, v in _COLUMNS.items() if crowded or k != _ALL}
    for name in columns:
        table.add_column(name, justify='right', no_wrap=True)
    hidden = ordered[_BEST : _BEST - _MOST_LINES] if len(ordered) > _MOST_LINES else []
    for place, row in enumerate(ordered):
        if hidden and place == _BEST:
            table.add_row(Text(f'... {len(hidden)} classes'), *['...'] * len(columns))
        if not hidden or not _BEST <= place < _BEST + len(hidden):
            cells = (_shown(getattr(row, attribute)) for attribute in columns.values())
            table.add_row(Text(printable(row.name, _LONGEST_NAME)), *cells)
    notes = []
    if crowded:
        notes.append(
            f'AP, as {kind}_mAP, is of the 100 best boxes in an image, AP all of more'
        )
    if hidden:
        notes.append(f'all {len(figures)} classes: {printable(file, 4096)}')
    if len(measured) < len(figures):
        notes.append(f'classes of which there is no box: {_unmeasured(figures)}')
    return Group(table, *(Text(note, overflow='fold') for note in notes))


def _shown(value: float | int | None) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _unmeasured(figures: list[ClassFigures], most: int = 5) -> str:
    names = [printable(row.name, _LONGEST_NAME) for row in figures if row.ap is None]
    told = ', '.join(names[:most])
    return told if len(names) <= most else f'{told} and {len(names) - most} more'
