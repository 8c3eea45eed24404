"""Boxes of a data set to look at: objects, and background of the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..own_data.for_config import DataFolder

# Of background boxes: how much of one an object may cover, and how often one is tried.
_COVERED, _TRIES = 0.2, 20


@dataclass(frozen=True)
class BoxedImage:
    """An image, and boxes in it.

    Attributes:
        path: Of the file.
        boxes: (N, 4) x1, y1, x2, y2 in its pixels.
        labels: (N,) places in the classes; their number for background.
    """

    path: str
    boxes: np.ndarray
    labels: np.ndarray


def sample_boxes(
    folder: DataFolder, most_boxes: int, most_images: int, seed: int = 0
) -> list[BoxedImage]:
    """Choose images of the training split, with as much background as objects.

    Args:
        folder: The data set.
        most_boxes: Objects in all; of more images fewer boxes each are taken.
        most_images: Images in all.
        seed: Of the choice.

    Raises:
        UserError: If there is no object.
    """
    random = np.random.default_rng(seed)
    found = list(_annotated(folder))
    if not found:
        raise UserError(f"no image to train with in '{folder.root}' has an object")
    chosen = random.permutation(len(found))[:most_images]
    each = max(1, most_boxes // len(chosen))
    images = []
    for number in sorted(chosen):
        path, size, boxes, labels = found[number]
        kept = random.permutation(len(boxes))[:each]
        others = _background(boxes, boxes[kept], size, random)
        background = np.full(len(others), len(folder.classes))
        images.append(
            BoxedImage(
                path,
                np.concatenate([boxes[kept], others]),
                np.concatenate([labels[kept], background]),
            )
        )
    return images


def _annotated(
    folder: DataFolder,
) -> Iterator[tuple[str, tuple[int, int], np.ndarray, np.ndarray]]:
    """Yield path, width and height, boxes and labels of images with objects."""
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    coco = folder.kind == 'CocoDataset'
    images: dict[str, Any] = (
        dict(img=folder.train.images) if coco else dict(sub_data_root='')
    )
    dataset = DATASETS.build(
        dict(
            type=f'mmdet.{folder.kind}',
            data_root=folder.root,
            ann_file=folder.train.annotations,
            data_prefix=images,
            metainfo=folder.metainfo,
            pipeline=[],
        )
    )
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        objects = [o for o in info['instances'] if not o['ignore_flag']]
        boxes = np.array([o['bbox'] for o in objects], float).reshape(-1, 4)
        # mmdet keeps those of a whole row of pixels at most.
        large = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        if large.any():
            labels = np.array([o['bbox_label'] for o in objects])
            size = info['width'], info['height']
            yield info['img_path'], size, boxes[large], labels[large]


def _background(
    objects: np.ndarray,
    like: np.ndarray,
    size: tuple[int, int],
    random: np.random.Generator,
) -> np.ndarray:
    """Place a box of the size of each somewhere that shows next to no object."""
    found = []
    for sides in like[:, 2:] - like[:, :2]:
        room = np.maximum(np.array(size) - sides, 0)
        for _ in range(_TRIES):
            corner = random.random(2) * room
            box = np.concatenate([corner, corner + sides])
            low = np.maximum(objects[:, :2], box[:2])
            high = np.minimum(objects[:, 2:], box[2:])
            if np.maximum(high - low, 0).prod(1).max() <= _COVERED * sides.prod():
                found.append(box)
                break
    return np.array(found).reshape(-1, 4)
