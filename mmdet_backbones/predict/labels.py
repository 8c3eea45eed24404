"""Labels of images, for tools that people annotate with: YOLO, Pascal VOC, labelme."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import printable
from ..files import write_atomically
from ..own_data.values import composed
from ..runtime.detections import Detections
from .frames import Frame
from .tables import boxes_of

_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
# The names of a YOLO folder's class numbers.
CLASSES = 'classes.txt'


def yolo(frame: Frame, found: Detections, target: Path) -> str:
    """Return the lines of an image: number of the class, and the box in parts of it."""
    width, height = frame.size
    lines = []
    for label, box in zip(found.labels, found.boxes.tolist(), strict=True):
        x0, y0, x1, y1 = box
        values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height,
                  (x1 - x0) / width, (y1 - y0) / height)  # fmt: skip
        lines.append(f'{label} {" ".join(f"{value:.9g}" for value in values)}\n')
    return ''.join(lines)


def voc(frame: Frame, found: Detections, target: Path) -> str:
    """Return the XML of an image; Pascal VOC counts pixels from 1."""
    root = ElementTree.Element('annotation')
    _add(root, 'filename', printable(Path(frame.name).name, 4096))
    size = ElementTree.SubElement(root, 'size')
    width, height = frame.size
    for name, pixels in (('width', width), ('height', height), ('depth', 3)):
        _add(size, name, str(pixels))
    for name, _, box in boxes_of(found):
        x0, y0, x1, y1 = box
        node = ElementTree.SubElement(root, 'object')
        _add(node, 'name', name)
        _add(node, 'difficult', '0')
        corners = ElementTree.SubElement(node, 'bndbox')
        for side, value in zip(_SIDES, (x0 + 1, y0 + 1, x1, y1), strict=True):
            _add(corners, side, f'{value:.3f}')
    ElementTree.indent(root)
    return f'{ElementTree.tostring(root, encoding="unicode")}\n'


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


def labelme(frame: Frame, found: Detections, target: Path) -> str:
    """Return the JSON of an image, which names it from where the JSON lies."""
    assert frame.path is not None
    width, height = frame.size
    shapes: list[dict[str, Any]] = [
        dict(label=label, points=[[x0, y0], [x1, y1]], group_id=None,
             description=f'score {score:.3f}', shape_type='rectangle', flags={})
        for label, score, (x0, y0, x1, y1) in boxes_of(found)
    ]  # fmt: skip
    image = os.path.relpath(frame.path.absolute(), target.absolute().parent)
    content: dict[str, Any] = dict(version='5.5.0', flags={}, shapes=shapes,
                   imagePath=Path(image).as_posix(), imageData=None,
                   imageHeight=height, imageWidth=width)  # fmt: skip
    return f'{json.dumps(content, indent=1)}\n'


#: What writes a format, and how its files end.
LABELS: dict[str, tuple[Callable[[Frame, Detections, Path], str], str]] = {
    'yolo': (yolo, '.txt'),
    'voc': (voc, '.xml'),
    'labelme': (labelme, '.json'),
}


def label_file(folder: Path, image: str, kind: str) -> Path:
    """Name the labels of an image.

    Args:
        folder: That they go to.
        image: Its name below the folder of all images.
        kind: One of :data:`LABELS`.
    """
    return folder / Path(image).with_suffix(LABELS[kind][1])


def odd_names(names: Sequence[str]) -> str | None:
    """Say which classes such a file cannot name; None if it can name all."""
    twice = sorted({name for name in names if names.count(name) > 1})
    odd = [
        name for name in names
        if not name.isprintable() or composed(name).strip() != name or not name
    ]  # fmt: skip
    wrong = [printable(repr(name)) for name in [*twice, *odd][:3]]
    if not wrong:
        return None
    return f'classes {", ".join(wrong)} are not told apart by other tools'


class LabelFiles:
    """One file for each image, each of them whole or not there.

    Args:
        folder: That they go to, in the folders that the images lie in.
        kind: One of :data:`LABELS`.
        names: Of all classes.
    """

    left = None

    def __init__(self, folder: Path, kind: str, names: tuple[str, ...]) -> None:
        self._folder, self._kind = folder, kind
        if kind == 'yolo':
            # Before the labels, which mean nothing without it.
            content = ''.join(f'{name}\n' for name in names)
            write_atomically(folder / CLASSES, content)

    def add(self, frame: Frame, found: Detections) -> None:
        """Write the labels of one image."""
        target = label_file(self._folder, frame.name, self._kind)
        write_atomically(target, LABELS[self._kind][0](frame, found, target))

    def close(self) -> list[Path]:
        """Return where they are."""
        return [self._folder]

    def leave(self) -> None:
        """Keep those that there are."""
