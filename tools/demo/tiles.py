"""Cuts annotated photographs into tiles and writes them as COCO data sets."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.own_data.tiles import spans


@dataclass(frozen=True)
class Window:
    """A tile's place in its photograph, in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass
class SplitCount:
    """What one split holds."""

    photographs: int = 0
    tiles: int = 0
    tiles_without_trees: int = 0
    boxes: int = 0


class CocoSplit:
    """Collects the tiles of photographs as one COCO data set of one class.

    Args:
        description: What the data is, for the file's ``info``.
        licence: Under which terms it may be used.
        category: Name of the one class.
    """

    def __init__(self, description: str, licence: str, category: str) -> None:
        self.description = description
        self.licence = licence
        self.category = category
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.pictures: dict[str, bytes] = {}
        self.count = SplitCount()

    def add(
        self, name: str, picture: bytes, annotation: bytes, tile: int, overlap: float
    ) -> None:
        """Cut one photograph and add its tiles.

        Args:
            name: How the files of its tiles begin.
            picture: The photograph, a file that PIL reads.
            annotation: Its boxes, a Pascal VOC XML.
            tile, overlap: See ``spans``.

        Raises:
            ValueError: If picture and annotation are not of the same size, or
                the annotation cannot be read.
        """
        photograph = Image.open(io.BytesIO(picture)).convert('RGB')
        size, boxes = parse_voc(annotation)
        if size != photograph.size:
            raise ValueError(
                f'{name}: the boxes are drawn on {size} pixels, '
                f'the picture has {photograph.size}'
            )
        self.count.photographs += 1
        width, height = size
        for top, bottom in spans(height, tile, overlap):
            for left, right in spans(width, tile, overlap):
                window = Window(left, top, right, bottom)
                crop = photograph.crop((left, top, right, bottom))
                file_name = f'{name}_x{left:04d}_y{top:04d}.png'
                self.pictures[file_name] = _png_of(crop)
                self._add_tile(file_name, crop.size, boxes_in(boxes, window))

    def _add_tile(
        self, file_name: str, size: tuple[int, int], boxes: np.ndarray
    ) -> None:
        image_id = len(self.images) + 1
        width, height = size
        self.images.append(
            {'id': image_id, 'file_name': file_name, 'width': width, 'height': height}
        )
        for x0, y0, x1, y1 in boxes.tolist():
            box = [x0, y0, x1 - x0, y1 - y0]
            self.annotations.append(
                {
                    'id': len(self.annotations) + 1,
                    'image_id': image_id,
                    'category_id': 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
            )
        self.count.tiles += 1
        self.count.tiles_without_trees += not len(boxes)
        self.count.boxes += len(boxes)

    def to_json(self) -> bytes:
        """Return the data set as COCO JSON."""
        content = {
            'info': {'description': self.description},
            'licenses': [{'id': 1, 'name': self.licence}],
            'categories': [{'id': 1, 'name': self.category}],
            'images': self.images,
            'annotations': self.annotations,
        }
        return json.dumps(content, indent=1).encode()


def parse_voc(annotation: bytes) -> tuple[tuple[int, int], np.ndarray]:
    """Read a Pascal VOC annotation; every object counts, whatever its label.

    Args:
        annotation: The XML. Its pixels count from 1 and the last one is inside.

    Returns:
        Width and height, and the boxes, (N, 4) integers: left, top, right, bottom,
        counted from 0, with right and bottom outside.

    Raises:
        ValueError: If it is not such an XML, or a box is empty or outside.
    """
    try:
        root = ElementTree.fromstring(annotation)
        width, height = (
            int(root.findtext(f'size/{k}', '')) for k in ('width', 'height')
        )
        rows = [
            [int(box.findtext(k, '')) for k in ('xmin', 'ymin', 'xmax', 'ymax')]
            for box in root.iterfind('object/bndbox')
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f'not a Pascal VOC annotation: {error}') from error
    boxes = np.array(rows, dtype=np.int64).reshape(-1, 4) - (1, 1, 0, 0)
    inside = (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    if not inside or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise ValueError(f'a box is empty or not within {width} x {height} pixels')
    return (width, height), boxes


def boxes_in(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Return the boxes whose centre lies in a window, clipped to it.

    Args:
        boxes: (N, 4) left, top, right, bottom in the photograph.
        window: The tile.

    Returns:
        (M, 4) boxes in the tile's own pixels.
    """
    low = np.array([window.left, window.top])
    high = np.array([window.right, window.bottom])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    mine = boxes[((centre >= low) & (centre < high)).all(axis=1)]
    corners = np.clip(mine.reshape(-1, 2, 2), low, high) - low
    return corners.reshape(-1, 4)


def _png_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # The photograph's colour profile and camera data are no part of a tile.
    picture.info.clear()
    picture.save(buffer, 'PNG')
    return buffer.getvalue()
