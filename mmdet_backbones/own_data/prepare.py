"""Makes a data set in COCO's format from a folder of annotated images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import UserError
from .boxes import ClassRule, clean
from .formats import coco, labelme, voc, yolo
from .images import Facts, look_at
from .near_copies import NOT_LOOKED_FOR, can_look
from .placing import REPORT, problems_with, write
from .records import Annotations, Notes, Record, some
from .report import DataReport, figures
from .scan import LOOKED_FOR, DataFiles, recognise, scan
from .sheet import draw_sheet
from .splits import settle
from .tiles import SMALLEST, cut, write_tile
from .values import composed
from .writing import check, coco_content, link, short_names

FORMATS = tuple(LOOKED_FOR)
Track = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes so many items through and shows how far it is."""


@dataclass(frozen=True)
class DataOptions:
    """What a user wants.

    Attributes:
        folder: The images and their annotations, as they are; nothing is changed.
        out: Where the data set goes.
        val_share: Part of the images to measure on, if the folder has no split.
        seed: Of the split, and of the choice of examples.
        classes: The classes that count, in the order of their numbers; None for all.
        merge_into: One name for all of them; None to keep theirs.
        format: One of ``FORMATS``; None to recognise it.
        force: Replace a data set that was written before.
        tile: Side in pixels of the tiles that larger images are cut into; None to
            keep them whole.
    """

    folder: Path
    out: Path
    val_share: float = 0.2
    seed: int = 0
    classes: tuple[str, ...] | None = None
    merge_into: str | None = None
    format: str | None = None
    force: bool = False
    tile: int | None = None


def prepare(options: DataOptions, track: Track = lambda items, _: items) -> DataReport:
    """Make the data set.

    Args:
        options: What is wanted.
        track: Shows progress over the images.

    Returns:
        What it holds, and every file and box that was not good.

    Raises:
        UserError: If nothing can be made of the folder so; says all of it.
    """
    _check_order(options)
    notes = Notes()
    found, kind, source = _source(options, notes)
    rule = _rule(source, options)
    facts = _facts(found, source, notes, track)
    records = _clean(source.records, facts, rule, notes)
    if not records:
        raise UserError(f"'{options.folder}' holds no good image{notes.worst()}")
    masks = _keep_outlines(records, notes, options.tile is not None)
    splits = settle(records, facts, options.val_share, options.seed, notes)
    if options.tile is not None:
        # After the split: tiles of one photograph stay on one side.
        splits = {
            k: cut(side, facts, options.tile, notes) for k, side in splits.items()
        }
    if not any(record.boxes for record in splits['train']):
        raise UserError(
            f"'{options.folder}' has no good box to train on{notes.worst()}"
        )
    classes = _classes(source, rule, records)
    report = DataReport(
        options.out,
        kind,
        classes,
        masks,
        {name: figures(side, facts, classes) for name, side in splits.items()},
        notes.findings,
        () if can_look() else (NOT_LOOKED_FOR,),
    )
    write(
        options.out,
        lambda new: _fill(new, found, splits, facts, report, options.seed),
        options.force,
    )
    return report


def _check_order(options: DataOptions) -> None:
    problems = []
    if not os.path.isdir(options.folder):
        problems.append(f"there is no folder '{options.folder}'")
    else:
        problems += problems_with(options.out, options.folder, options.force)
    if not 0 < options.val_share < 1:
        problems.append(f'--val-share is between 0 and 1, got {options.val_share}')
    names = options.classes or ()
    if options.classes is not None and ('' in names or not names):
        problems.append('--classes takes names with commas between: --classes a,b,c')
    if options.tile is not None and options.tile < SMALLEST:
        problems.append(f'--tile is {SMALLEST} pixels or more, got {options.tile}')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.append(f'--classes names {", ".join(twice)} twice')
    if options.merge_into is not None and not options.merge_into.strip():
        problems.append('--merge-into takes a name')
    if problems:
        raise UserError('; '.join(problems))


def _source(options: DataOptions, notes: Notes) -> tuple[DataFiles, str, Annotations]:
    found = scan(options.folder.resolve(), options.out.resolve())
    for name, why in found.odd.items():
        notes.add(name, why)
    if not found.images:
        names = [name for listed in found.files.values() for name in listed]
        holds = f'{len(names)} other files' if names else 'nothing'
        raise UserError(
            f"'{options.folder}' holds no images, {holds} at all{notes.worst()}"
        )
    kind = recognise(found, options.format)
    try:
        source = _read(kind, found, notes, options)
    except OSError as error:
        raise UserError(
            f"'{error.filename}' cannot be read: {error.strerror}"
        ) from error
    return found, kind, source


def _read(
    kind: str, found: DataFiles, notes: Notes, options: DataOptions
) -> Annotations:
    if kind == 'yolo':
        return yolo.read(found, notes, options.classes)
    return {'coco': coco, 'voc': voc, 'labelme': labelme}[kind].read(found, notes)


def _rule(source: Annotations, options: DataOptions) -> ClassRule:
    """Return which classes count.

    Raises:
        UserError: If classes are wanted that are not in the folder.
    """
    if options.classes is None:
        return ClassRule(source.classes, options.merge_into)
    there = {box.label for record in source.records for box in record.boxes}
    there |= set(source.classes or ())
    wanted = tuple(composed(name) for name in options.classes)
    problems = []
    for name in wanted:
        if name not in there:
            near = get_close_matches(name, there, n=3, cutoff=0.5)
            hint = f' (nearest: {some(near)})' if near else ''
            problems.append(f"no object is of class '{name}'{hint}")
    if problems:
        listed = some(sorted(there), 20) or 'none'
        raise UserError(f'--classes: {"; ".join(problems)}. There are {listed}')
    return ClassRule(wanted, options.merge_into)


def _classes(
    source: Annotations, rule: ClassRule, records: list[Record]
) -> tuple[str, ...]:
    if rule.merged is not None:
        return (rule.merged,)
    if rule.listed is not None:
        return rule.listed
    return tuple(sorted({box.label for record in records for box in record.boxes}))


def _facts(
    found: DataFiles, source: Annotations, notes: Notes, track: Track
) -> dict[str, Facts]:
    """Look at every image of the folder, also at those without annotation."""
    paths = [found.root / name for name in found.images]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looked = track(pool.map(look_at, paths), len(paths))
        facts = dict(zip(found.images, looked, strict=True))
    used = {record.name for record in source.records}
    for name, fact in facts.items():
        if fact.fault:
            notes.add(name, fact.fault)
        for remark, done in fact.remarks:
            if name in used:
                notes.add(name, remark, done)
    return facts


def _clean(
    records: list[Record], facts: dict[str, Facts], rule: ClassRule, notes: Notes
) -> list[Record]:
    good = []
    for record in records:
        if facts[record.name].fault:
            continue
        boxes = clean(record, facts[record.name], rule, notes)
        if boxes is None:
            continue
        if not boxes:
            notes.add(record.name, 'zero boxes', 'kept: mmdet does not train on it')
        record.boxes = boxes
        good.append(record)
    return good


def _keep_outlines(records: list[Record], notes: Notes, tiled: bool) -> bool:
    """Tell whether all boxes have outlines; take them away if only some have.

    mmdet stops at the first object without a mask when it learns masks.
    """
    boxes = [(record, box) for record in records for box in record.boxes]
    without = [record for record, box in boxes if box.outline is None]
    if not boxes or not (without or tiled):
        return bool(boxes)
    if not without:
        notes.add(records[0].source, 'outlines cannot be cut into tiles',
                  'outlines are not written, boxes are')  # fmt: skip
    elif len(without) < len(boxes):
        notes.add(without[0].source, 'some objects have no outline',
                  'outlines are not written, boxes are')  # fmt: skip
    for _, box in boxes:
        box.outline = None
    return False


def _fill(
    new: Path,
    found: DataFiles,
    splits: dict[str, list[Record]],
    facts: dict[str, Facts],
    report: DataReport,
    seed: int,
) -> None:
    (new / 'annotations').mkdir()
    placed: dict[str, Path] = {}
    for split, records in splits.items():
        (new / split).mkdir()
        names = short_names(records)
        for record, name in zip(records, names, strict=True):
            target = placed[record.name] = new / split / name
            if record.crop is not None:
                source = found.root / record.crop.name
                write_tile(source, record.crop.window, target)
            else:
                link(found.root / record.name, target)
        path = new / 'annotations' / f'{split}.json'
        content = coco_content(records, names, facts, report.classes)
        with path.open('x') as file:
            json.dump(content, file)
        check(path, len(content['images']), len(content['annotations']))
    draw_sheet(placed, splits, report.classes, new / 'examples.png', seed)
    with (new / REPORT).open('x') as file:
        json.dump(report.to_dict(), file, indent=1)
