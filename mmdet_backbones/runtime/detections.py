"""What a detector finds in one image: the class that every part hands on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """The boxes of one image, the best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the given image.
        scores: (N,) float32, descending.
        labels: (N,) int64, places in ``names``.
        names: Of all classes that the detector knows.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
