"""Non-maximum suppression inside a graph: shapes depend on no value."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import nms

Found = tuple[Tensor, Tensor, Tensor]
# The best boxes of an image, which are compared with each other: that takes time with
# their square. More would change nothing as long as these leave as many as the detector
# gives.
MOST_CANDIDATES = 4096


def top_candidates(
    scores: Tensor, threshold: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the best scores of each image, as mmdet's ``filter_scores_and_topk`` does.

    Args:
        scores: (N, M, C) of M places and C classes.
        threshold: Scores that are not over it are none.
        count: How many to take at most.

    Returns:
        Scores (N, K), -1 where there are no more over the threshold; places (N, K);
        labels (N, K).
    """
    classes = scores.shape[2]
    flat = scores.flatten(1)
    flat = torch.where(flat > threshold, flat, torch.full_like(flat, -1))
    if isinstance(flat.shape[1], int):
        count = min(count, flat.shape[1])
    else:  # of an image whose size is not known, there may be fewer places
        flat = torch.cat((flat, flat.new_full((flat.shape[0], count), -1)), dim=1)
    best, index = flat.topk(count, dim=1)
    # What stands in for places that are missing leads to the last one there is.
    place = (index // classes).clamp(max=scores.shape[1] - 1)
    return best, place, index % classes


def gather(values: Tensor, places: Tensor) -> Tensor:
    """Take rows of each image.

    Args:
        values: (N, M, D).
        places: (N, K) from 0 to M - 1.

    Returns:
        (N, K, D).
    """
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float | None,
    count: int,
    class_agnostic: bool = False,
    classes: int = 1,
) -> Found:
    """Keep the boxes of each image that no better box of their class covers.

    Args:
        boxes: (N, M, 4) as x1, y1, x2, y2.
        scores: (N, M), negative where there is no box.
        labels: (N, M).
        iou_threshold: A box goes when its overlap with a better one is over it; None
            keeps all of them.
        count: Boxes of an image in the result, filled up or cut off.
        class_agnostic: Whether boxes of other classes cover one as well.
        classes: How many labels there are.

    Returns:
        Boxes (N, K, 4), scores (N, K) in descending order and labels (N, K); 0, 0 and
        -1 where there is no box.
    """
    if iou_threshold is not None:
        cells = torch.zeros_like(labels) if class_agnostic else labels
        kinds = 1 if class_agnostic else classes
        kept = _kept(boxes, scores, cells, kinds, iou_threshold)
        scores = torch.where(kept, scores, torch.full_like(scores, -1))
    return best_of(boxes, scores, labels, count)


def best_of(boxes: Tensor, scores: Tensor, labels: Tensor, count: int) -> Found:
    """Sort, cut off and fill up.

    Args:
        boxes: (N, M, 4).
        scores: (N, M), negative where there is no box.
        labels: (N, M).
        count: As for :func:`suppress`.

    Returns:
        As there.
    """
    short = count
    if isinstance(scores.shape[1], int):  # or else there may be any number
        short = max(count - scores.shape[1], 0)
    if short:
        boxes = torch.cat((boxes, boxes.new_zeros(boxes.shape[0], short, 4)), 1)
        scores = torch.cat((scores, scores.new_full((scores.shape[0], short), -1)), 1)
        labels = torch.cat((labels, labels.new_full((labels.shape[0], short), -1)), 1)
    best, order = scores.topk(count, dim=1)
    there = best >= 0
    found = torch.where(there[..., None], gather(boxes, order), boxes.new_zeros(()))
    names = torch.where(there, labels.gather(1, order), labels.new_full((), -1))
    return found, best.clamp(min=0), names


def _kept(
    boxes: Tensor, scores: Tensor, cells: Tensor, kinds: int, iou_threshold: float
) -> Tensor:
    """Tell which boxes stay: (N, M), those without a score among them."""
    there = scores >= 0
    # Boxes that are none cover each other in a cell of their own, where the first one
    # of them removes all others at once.
    cells = torch.where(there, cells, cells.new_full((), kinds))
    unit = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=boxes.dtype, device=boxes.device)
    boxes = torch.where(there[..., None], boxes, unit)
    images = boxes.shape[0]
    if isinstance(images, int):
        # One by one: the work grows with the square of what is compared.
        kept = [
            _survivors(boxes[i], scores[i], cells[i], kinds, iou_threshold)
            for i in range(images)
        ]
        return torch.stack(kept)
    numbers = torch.arange(images, device=cells.device)[:, None] * (kinds + 1)
    alone = (cells + numbers).flatten()
    kept_flat = _survivors(
        boxes.flatten(0, 1), scores.flatten(), alone, kinds, iou_threshold
    )
    return kept_flat.reshape(scores.shape)


def _survivors(
    boxes: Tensor, scores: Tensor, cells: Tensor, kinds: int, iou_threshold: float
) -> Tensor:
    """Tell which of (M, 4) boxes stay where boxes of other cells do not count."""
    # A chessboard of places: in one long row the last would have few digits left
    # behind the point.
    side = math.ceil(math.sqrt(kinds + 1))
    span = boxes.max() - boxes.min() + 1
    shift = torch.stack((cells % side, cells // side), dim=-1).to(boxes) * span
    kept = nms(boxes + shift.repeat(1, 2), scores, iou_threshold)
    marks = torch.zeros_like(cells).scatter(0, kept, torch.ones_like(kept))
    return marks > 0
