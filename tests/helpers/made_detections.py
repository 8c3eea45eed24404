"""Synthetic truth and detections, as mmdet's CocoMetric takes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

WIDTH, HEIGHT = 640, 480


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Boxes from a few pixels to most of the image, as corners."""
    sides = np.exp(random.uniform(1.5, 5.3, (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - sides)
    return np.hstack((corners, corners + sides))


def _polygon(box: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = map(float, box)
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _mask(box: np.ndarray) -> dict[str, Any]:
    return coco_mask.frPyObjects([_polygon(box)], HEIGHT, WIDTH)[0]


def make(
    path: Path,
    images: int = 40,
    classes: int = 4,
    random_ones: int = 20,
    seed: int = 0,
    masks: bool = False,
    first: int = 1,
) -> tuple[list[tuple[dict, dict]], tuple[str, ...]]:
    """Write a file of truth, and make up detections.

    Near most boxes there are detections of different quality, of the right class or
    another one; some boxes are of crowds, some classes are rare.

    Args:
        path: Of the truth, in COCO's format.
        images: How many.
        classes: How many.
        random_ones: Detections anywhere, in each image.
        seed: Of all chance.
        masks: Whether all have outlines.
        first: Number of the first annotation.

    Returns:
        What CocoMetric collects of each image, and the names of the classes.
    """
    random = np.random.default_rng(seed)
    names = tuple(f'class {i}' for i in range(classes))
    annotations: list[dict[str, Any]] = []
    results = []
    for image in range(images):
        count = int(random.integers(0, 14))
        boxes, labels = _boxes(random, count), random.integers(0, classes, count)
        found, of = (
            [_boxes(random, random_ones)],
            [random.integers(0, classes, random_ones)],
        )
        for box, label in zip(boxes, labels, strict=True):
            x0, y0, x1, y1 = map(float, box)
            crowd = random.random() < 0.08 and not masks
            annotations.append(
                dict(id=len(annotations) + first, image_id=image, iscrowd=int(crowd),
                     category_id=int(label) * 3 + 5, area=(x1 - x0) * (y1 - y0),
                     bbox=[x0, y0, x1 - x0, y1 - y0],
                     **(dict(segmentation=[_polygon(box)]) if masks else {}))
            )  # fmt: skip
            near = int(random.integers(0, 4))
            shift = random.normal(0, 0.1, (near, 4)) * np.tile([x1 - x0, y1 - y0], 2)
            found.append(box + shift)
            right = random.random(near) < 0.8
            of.append(np.where(right, label, random.integers(0, classes, near)))
        every = np.vstack(found).astype(np.float32)
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        scores = random.random(len(every))
        scores[:random_ones] *= 0.4
        result = dict(
            img_id=image,
            bboxes=every,
            labels=np.concatenate(of),
            # Two decimals: many scores are equal.
            scores=scores.round(2),
        )
        if masks:
            result['masks'] = [_mask(box) for box in every]
        results.append((dict(width=WIDTH, height=HEIGHT, img_id=image), result))
    content = dict(
        images=[dict(id=i, width=WIDTH, height=HEIGHT) for i in range(images)],
        annotations=annotations,
        categories=[dict(id=i * 3 + 5, name=name) for i, name in enumerate(names)],
    )
    path.write_text(json.dumps(content))
    return results, names
