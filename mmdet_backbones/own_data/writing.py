"""Writes the parts of a data set, and over nothing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from .images import Facts
from .outlines import area
from .records import Record

_LONGEST = 250


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
                area=area(box.outline) or (x1 - x0) * (y1 - y0),
                iscrowd=int(box.ignore),
            )
            annotations.append(
                entry | (dict(segmentation=box.outline) if box.outline else {})
            )
    categories = [dict(id=i, name=name) for name, i in numbers.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def short_names(records: list[Record]) -> list[str]:
    """Return the images' names without the folders that all of them share.

    A name that is not UTF-8 is written with its bytes in hexadecimals: what prints or
    logs it would stop. One that is too long for a disk ends in a check sum.
    """
    folders = [str(Path(record.name).parent) for record in records]
    shared = Path(os.path.commonpath(folders)) if folders else Path()
    names: dict[str, None] = {}
    for record in records:
        own = Path(record.name).relative_to(shared).as_posix()
        name = re.sub('[\ud800-\udfff]', lambda m: f'%{ord(m[0]) & 255:02X}', own)
        path = Path(name)
        if len(path.name.encode()) > _LONGEST:
            stem = path.stem.encode()[: _LONGEST - 60].decode(errors='ignore')
            check_sum = sha256(own.encode(errors='surrogateescape')).hexdigest()[:16]
            name = str(path.with_name(f'{stem}-{check_sum}{path.suffix[:20]}'))
        while name in names:
            name = str(Path(name).with_stem(f'{Path(name).stem}_'))
        names[name] = None
    return list(names)


def link(source: Path, target: Path) -> None:
    """Put an image into the data set without moving it, or taking space if it can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        # A copy would go through it, into another photograph.
        raise
    except OSError:
        with source.open('rb') as photograph, target.open('xb') as copy:
            shutil.copyfileobj(photograph, copy)


def check(path: Path, images: int, boxes: int) -> None:
    """Let pycocotools read what was written."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert (len(coco.imgs), len(coco.anns)) == (images, boxes), path
