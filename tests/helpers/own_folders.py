"""Folders of synthetic images in the formats that people annotate in."""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console

COLOURS = {'shrub': (200, 40, 40), 'tree': (40, 200, 40)}
FORMATS = ('coco', 'voc', 'yolo', 'labelme')


def scenes(count=6, seed=0):
    """Names, sizes and boxes of images; every number of boxes from 1 to 3."""
    random = np.random.default_rng(seed)
    made = {}
    for i in range(count):
        size = (int(random.integers(80, 120)), int(random.integers(60, 100)))
        boxes = []
        for j in range(1 + i % 3):
            x, y = (int(value) for value in random.integers(2, 30, 2))
            width, height = (int(value) for value in random.integers(8, 28, 2))
            label = ('tree', 'shrub')[(i + j) % 2]
            boxes.append((label, x, y, x + width, y + height))
        made[f'photo_{i}.png'] = (size, boxes)
    return made


def draw(path, size, boxes, seed=0):
    pixels = np.random.default_rng([seed, len(path.name), *path.name.encode()])
    array = pixels.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
    for label, x0, y0, x1, y1 in boxes:
        array[y0:y1, x0:x1] = COLOURS.get(label, (0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def voc_xml(name, size, boxes):
    objects = ''.join(
        f'<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x0 + 1}'
        f'</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>'
        '</object>'
        for label, x0, y0, x1, y1 in boxes
    )
    return (
        f'<annotation><filename>{name}</filename><size><width>{size[0]}</width>'
        f'<height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>'
    )


def coco_json(made, labels=('tree', 'shrub')):
    images, annotations = [], []
    for i, (name, (size, boxes)) in enumerate(made.items(), 10):
        images.append(dict(id=i, file_name=name, width=size[0], height=size[1]))
        for label, x0, y0, x1, y1 in boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=i, bbox=box, iscrowd=0,
                     area=box[2] * box[3], category_id=7 + labels.index(label))
            )  # fmt: skip
    categories = [dict(id=7 + i, name=label) for i, label in enumerate(labels)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(root, made, split=''):
    for name, (size, boxes) in made.items():
        draw(root / (split or 'images') / name, size, boxes)
    path = root / 'annotations' / f'instances_{split or "all"}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_json(made)))


def write_voc(root, made, split=''):
    for name, (size, boxes) in made.items():
        draw(root / 'JPEGImages' / name, size, boxes)
        path = root / 'Annotations' / f'{Path(name).stem}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc_xml(name, size, boxes))
    if split:
        path = root / 'ImageSets' / 'Main' / f'{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(Path(name).stem for name in made))


def write_yolo(root, made, split=''):
    for name, (size, boxes) in made.items():
        draw(root / 'images' / split / name, size, boxes)
        path = root / 'labels' / split / f'{Path(name).stem}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for label, x0, y0, x1, y1 in boxes:
            values = [(x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1]]
            values += [(x1 - x0) / size[0], (y1 - y0) / size[1]]
            number = ('tree', 'shrub').index(label)
            lines.append(f'{number} {" ".join(map(str, values))}\n')
        path.write_text(''.join(lines))
    (root / 'data.yaml').write_text(
        'path: /somewhere/else\ntrain: images/train\nval: images/val\n'
        'names:\n  0: tree\n  1: shrub\n'
    )


def write_labelme(root, made, split=''):
    for name, (size, boxes) in made.items():
        draw(root / split / name, size, boxes)
        shapes = [
            dict(label=label, shape_type='rectangle', points=[[x1, y1], [x0, y0]])
            for label, x0, y0, x1, y1 in boxes
        ]
        content = dict(version='5.0', imagePath=name, imageWidth=size[0], flags={},
                       imageHeight=size[1], imageData=None, shapes=shapes)  # fmt: skip
        (root / split / f'{Path(name).stem}.json').write_text(json.dumps(content))


WRITERS = dict(coco=write_coco, voc=write_voc, yolo=write_yolo, labelme=write_labelme)


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def read_back(out):
    """Return the boxes of each image by name, and the split it is in."""
    found, splits = {}, {}
    for path in sorted((out / 'annotations').iterdir()):
        split, coco = path.stem, load(path)
        for image in coco.loadImgs(coco.getImgIds()):
            name = image['file_name']
            with Image.open(out / split / name) as picture:
                assert picture.size == (image['width'], image['height'])
            found[name], splits[name] = [], split
            for entry in coco.imgToAnns[image['id']]:
                x, y, width, height = entry['bbox']
                label = coco.cats[entry['category_id']]['name']
                found[name].append((label, x, y, x + width, y + height))
                assert entry['area'] == pytest.approx(width * height)
    return found, splits


def same_boxes(found, wanted):
    assert found.keys() == wanted.keys()
    for name, boxes in found.items():
        labels, corners = [b[0] for b in boxes], [b[1:] for b in boxes]
        assert labels == [b[0] for b in wanted[name]]
        assert np.abs(np.subtract(corners, [b[1:] for b in wanted[name]])).max() < 0.01


def printed(report, width=80):
    """Return what is shown of a report on a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=width)
    console.print(report.table())
    return console.file.getvalue()


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def state_of(folder):
    """What must not change in somebody's folder: contents, times, and which file."""
    found = {}
    for path in sorted(folder.rglob('*')):
        status = path.lstat()
        content = b''
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found[str(path.relative_to(folder))] = (
            digest, status.st_mode, status.st_ino, status.st_mtime_ns)  # fmt: skip
    return found
