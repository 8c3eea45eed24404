"""Writes the data set: all of it or nothing, and over nothing that is not ours."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from ..errors import UserError
from .images import Facts
from .records import Record

TOOL = 'mmdet_backbones prepare_data'
REPORT = 'report.json'
ENTRIES = ('annotations', 'train', 'val', 'examples.png', REPORT)


def problems_with(out: Path, source: Path, force: bool) -> list[str]:
    """Return why a folder cannot be written to; nothing if it can."""
    whole, origin = out.resolve(), source.resolve()
    if whole == origin or whole in origin.parents or origin in whole.parents:
        return [f"-o '{out}' lies in '{source}' or around it: name a folder beside it"]
    if not out.exists() and not out.is_symlink():
        near = next(parent for parent in whole.parents if parent.exists())
        return [] if near.is_dir() else [f"-o '{out}': '{near}' is a file"]
    if not out.is_dir():
        return [f"-o '{out}' is a file: move it away or name another folder"]
    there = [name for name in ENTRIES if os.path.lexists(out / name)]
    if not there:
        return []
    listed = ', '.join(there)
    if not force:
        return [f"-o '{out}' holds {listed} already: --force replaces a data set that "
                'this command wrote, or name another folder']  # fmt: skip
    if not _ours(out):
        return [f"-o '{out}' holds {listed}, which this command did not write: move "
                'them away or name another folder']  # fmt: skip
    return []


def _ours(out: Path) -> bool:
    try:
        return json.loads((out / REPORT).read_bytes()).get('tool') == TOOL
    except (OSError, ValueError, AttributeError):
        return False


def coco_content(
    records: list[Record],
    names: list[str],
    facts: dict[str, Facts],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return one split in COCO's format.

    Args:
        records: Its images, with clean boxes.
        names: The images' names in the split's folder.
        facts: The images as they are.
        classes: In the order of their numbers, from 1.
    """
    numbers = {name: i for i, name in enumerate(classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (record, name) in enumerate(zip(records, names, strict=True), 1):
        width, height = facts[record.name].size
        images.append(dict(id=image_id, file_name=name, width=width, height=height))
        for box in record.boxes:
            x0, y0, x1, y1 = (round(value, 3) for value in box.corners)
            entry = dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=numbers[box.label],
                bbox=[x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
                area=_area(box.outline) or (x1 - x0) * (y1 - y0),
                iscrowd=int(box.ignore),
            )
            annotations.append(
                entry | (dict(segmentation=box.outline) if box.outline else {})
            )
    categories = [dict(id=i, name=name) for name, i in numbers.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def _area(outline: Any) -> float:
    total = 0.0
    for polygon in outline if isinstance(outline, list) else ():
        xs, ys = polygon[::2], polygon[1::2]
        following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
        pairs = zip(xs, ys, following, strict=True)
        total += abs(sum(x * v - u * y for x, y, (u, v) in pairs)) / 2
    return total


def short_names(records: list[Record]) -> list[str]:
    """Return the images' names without the folders that all of them share."""
    folders = [str(Path(record.name).parent) for record in records]
    shared = Path(os.path.commonpath(folders)) if folders else Path()
    return [Path(record.name).relative_to(shared).as_posix() for record in records]


def link(source: Path, target: Path) -> None:
    """Put an image into the data set without moving it, or taking space if it can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def check(path: Path, images: int, boxes: int) -> None:
    """Let pycocotools read what was written."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert (len(coco.imgs), len(coco.anns)) == (images, boxes), path


def write(out: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder beside the wanted one and put it in its place.

    Args:
        out: The wanted folder. What ``ENTRIES`` does not name stays in it.
        fill: Writes the entries into the folder it is given.

    Raises:
        UserError: If it cannot be written; what was there is there again.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f'.{out.name}-', ignore_cleanup_errors=True
        ) as temporary:
            new, old = Path(temporary, 'new'), Path(temporary, 'old')
            new.mkdir()
            old.mkdir()
            fill(new)
            _exchange(new, old, out)
    except OSError as error:
        raise UserError(f"-o '{out}' cannot be written: {error}") from error


def _exchange(new: Path, old: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    done: list[str] = []
    try:
        for name in ENTRIES:
            done.append(name)
            if os.path.lexists(out / name):
                (out / name).rename(old / name)
            if (new / name).exists():
                (new / name).rename(out / name)
    except BaseException:
        for name in done:
            if (out / name).exists() and not (new / name).exists():
                (out / name).rename(new / name)
            if (old / name).exists():
                (old / name).rename(out / name)
        raise
