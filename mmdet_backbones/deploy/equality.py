"""Whether an exported detector finds what the detector itself finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.detections import Detections

#: Bounds of a float32 export: lowest overlap, largest difference of scores.
LEAST_IOU = 0.999
MOST_SCORE = 1e-4
#: Corners so near are the same, in pixels: of a small box the overlap says less.
_SAME_CORNER = 0.01
# How near the bound of suppression an overlap may fall on either side.
_TIE_IOU = 1e-3


@dataclass(frozen=True)
class Equality:
    """Two lists of boxes of the same images, side by side.

    Attributes:
        threshold: Boxes of this score and higher were compared.
        images: Number of them.
        boxes: That the detector itself found.
        missing: That the exported one has not.
        extra: That only the exported one has.
        ties: Missing or extra where a score is within 1e-4 of the threshold or of the
            last box of a full list, or an overlap within 1e-3 of the suppression's.
        least_iou: Of the boxes that were matched.
        largest_score: Difference of their scores.
        largest_corner: Difference of their corners in pixels.
    """

    threshold: float
    images: int
    boxes: int
    missing: int
    extra: int
    ties: int
    least_iou: float
    largest_score: float
    largest_corner: float

    @property
    def equal(self) -> bool:
        """Whether no box is missing or extra, ties aside, and all are where they were.

        Matching bounds overlaps and scores.
        """
        return not (self.missing or self.extra)

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f'{self.boxes} boxes of score {self.threshold:g} and higher in '
            f'{self.images} images: {self.missing} missing, {self.extra} extra, '
            f'{self.ties} ties; lowest IoU {self.least_iou:.5f}, largest difference '
            f'of a score {self.largest_score:.1e}, of a corner '
            f'{self.largest_corner:.1e} pixels'
        )


@dataclass(frozen=True)
class Bounds:
    """What counts as the same box.

    Attributes:
        iou: Lowest overlap.
        score: Largest difference of scores.
        nms_iou: Of the detector's suppression; None without one.
        count: Boxes of an image at most; the best are compared.
    """

    iou: float = LEAST_IOU
    score: float = MOST_SCORE
    nms_iou: float | None = None
    count: int | None = None


#: Of the same box in a lower precision.
LOOSE = Bounds(iou=0.9, score=0.05)


def compare(
    reference: Sequence[Detections],
    exported: Sequence[Detections],
    threshold: float,
    bounds: Bounds | None = None,
) -> Equality:
    """Compare what two detectors found in the same images.

    Args:
        reference: By the detector itself.
        exported: By the exported one.
        threshold: Lowest score of a box that counts.
        bounds: What counts as the same.

    Returns:
        The figures of all images.
    """
    bounds = bounds or Bounds()
    # An exported detector gives so many; of YOLOX, mmdet gives all.
    reference = [_best(one, bounds.count) for one in reference]
    pairs = zip(reference, exported, strict=True)
    found = [_of_image(one, other, threshold, bounds) for one, other in pairs]
    matched = [match for image in found for match in image[3]]
    return Equality(
        threshold=threshold,
        images=len(reference),
        boxes=sum(int((one.scores >= threshold).sum()) for one in reference),
        missing=sum(image[0] for image in found),
        extra=sum(image[1] for image in found),
        ties=sum(image[2] for image in found),
        least_iou=min((m[0] for m in matched), default=1.0),
        largest_score=max((m[1] for m in matched), default=0.0),
        largest_corner=max((m[2] for m in matched), default=0.0),
    )


def _best(found: Detections, count: int | None) -> Detections:
    order = np.argsort(-found.scores, kind='stable')[:count]
    return Detections(
        found.boxes[order], found.scores[order], found.labels[order], found.names
    )


_Match = tuple[float, float, float]


def _of_image(
    reference: Detections, exported: Detections, threshold: float, bounds: Bounds
) -> tuple[int, int, int, list[_Match]]:
    """Missing, extra, ties, and the overlap and differences of what was matched."""
    overlaps = iou_of(reference.boxes, exported.boxes)
    corners = _corners(reference.boxes, exported.boxes)
    overlaps = np.where(corners <= _SAME_CORNER, np.maximum(overlaps, 1), overlaps)
    scores = np.abs(reference.scores[:, None] - exported.scores[None])
    alike = (
        (reference.labels[:, None] == exported.labels[None])
        & (overlaps >= bounds.iou)
        & (scores <= bounds.score)
    )
    partners = _partners(np.where(alike, overlaps, -1))
    matched = [
        (float(overlaps[i, j]), float(scores[i, j]), float(corners[i, j]))
        for i, j in partners.items()
        if max(reference.scores[i], exported.scores[j]) >= threshold
    ]
    lonely = [i for i in range(len(reference.scores)) if i not in partners]
    taken = set(partners.values())
    others = [j for j in range(len(exported.scores)) if j not in taken]
    missing = [i for i in lonely if reference.scores[i] >= threshold]
    extra = [j for j in others if exported.scores[j] >= threshold]
    lost = [i for i in missing if not _tied(reference, i, exported, threshold, bounds)]
    gained = [j for j in extra if not _tied(exported, j, reference, threshold, bounds)]
    ties = len(missing) + len(extra) - len(lost) - len(gained)
    return len(lost), len(gained), ties, matched


def _partners(overlaps: np.ndarray) -> dict[int, int]:
    """Match rows and columns, those of the highest overlap first."""
    partners: dict[int, int] = {}
    taken: set[int] = set()
    rows, columns = np.nonzero(overlaps >= 0)
    order = np.argsort(-overlaps[rows, columns], kind='stable')
    for row, column in zip(rows[order], columns[order], strict=True):
        if int(row) not in partners and int(column) not in taken:
            partners[int(row)] = int(column)
            taken.add(int(column))
    return partners


def _tied(
    here: Detections, index: int, there: Detections, threshold: float, bounds: Bounds
) -> bool:
    """Whether rounding alone decides that a box is in one list and not the other."""
    score = here.scores[index]
    if score <= threshold + bounds.score:
        return True
    full = bounds.count is not None and len(there.scores) >= bounds.count
    if full and score <= there.scores.min() + bounds.score:
        return True
    if bounds.nms_iou is None:
        return False
    better = (there.labels == here.labels[index]) & (
        there.scores >= score - bounds.score
    )
    overlaps = iou_of(here.boxes[index : index + 1], there.boxes[better])
    return bool((np.abs(overlaps - bounds.nms_iou) <= _TIE_IOU).any())


def _corners(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if not len(one) or not len(other):
        return np.zeros((len(one), len(other)))
    return np.abs(one[:, None] - other[None]).max(axis=-1)


def iou_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Overlaps of boxes: intersection over union, in float64.

    Args:
        one: (N, 4) as x1, y1, x2, y2.
        other: (M, 4).

    Returns:
        (N, M).
    """
    one, other = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clip(0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clip(0).prod(-1) for b in (one, other)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-12)
