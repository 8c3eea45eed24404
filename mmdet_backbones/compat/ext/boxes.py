"""Boxes: non-maximum suppression (hard, soft, and the grouping kind) and overlaps.

Suppression has the semantics of mmcv 2.1.0 (``csrc/pytorch/cpu/nms.cpp``).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .kernels import in_float32, round_to_float32, torchvision_kernels

_NAIVE, _LINEAR = 0, 1
_AREA, _SCORE = 4, 5


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the boxes that no better box covers.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box goes when its overlap with a better one is over it.
        offset: 0, or 1 for boxes whose width is x2 - x1 + 1.

    Returns:
        (K,) indices of the kept boxes, best score first.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    # Equal scores are common (padded image areas). The kernels of mmcv order
    # them with this very sort, torchvision with a stable one; sorting first
    # keeps the order of mmcv.
    order = scores.sort(0, descending=True)[1]
    boxes = boxes[order]
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    keep = torchvision_kernels().nms(
        *in_float32(boxes, scores[order]), round_to_float32(iou_threshold)
    )
    return order[keep]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of covered boxes, drop those that fall under a minimum.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2, on the CPU.
        scores: (N,).
        dets: (N, 5), filled in place: box and new score in order of selection.
        iou_threshold: Overlap from which the naive and linear methods act.
        sigma: Width of the gaussian method.
        min_score: Boxes with a lower new score are dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0, or 1 for boxes whose width is x2 - x1 + 1.

    Returns:
        (K,) indices of the boxes left, in order of selection.
    """
    table = _columns(boxes, scores, offset)
    indices = np.arange(table.shape[1])
    first, count = 0, table.shape[1]
    while first < count:
        best = first + _best(table[_SCORE, first:count])
        column = table[:, first].copy()
        table[:, first], table[:, best] = table[:, best], column
        indices[first], indices[best] = indices[best], indices[first]

        rest = table[:, first + 1 : count]
        overlap = _overlap(table[:, first], rest, offset)
        rest[_SCORE] *= _decay(overlap, iou_threshold, sigma, method)
        dropped = rest[_SCORE] < table.dtype.type(min_score)
        first += 1
        if dropped.any():
            count = first + _close_gaps(rest, indices[first:count], ~dropped)

    dets[:count, :4] = torch.from_numpy(table[:4, :count].T.copy())
    dets[:count, 4] = torch.from_numpy(table[_SCORE, :count].copy())
    return torch.from_numpy(indices[:count].copy())


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group each kept box with the boxes that it suppresses.

    Args:
        dets: (N, 5) as x1, y1, x2, y2, score, on the CPU.
        iou_threshold: A box goes when its overlap with a better one reaches it.

    Returns:
        One list of indices for each kept box: itself, then the boxes it
        suppresses, best score first.
    """
    order = dets[:, 4].sort(0, descending=True)[1]
    table = _columns(dets[order, :4], dets[order, 4], offset=0)
    left = np.ones(len(order), dtype=bool)
    groups = []
    for first in range(len(order)):
        if not left[first]:
            continue
        rest = slice(first + 1, None)
        overlap = _overlap(table[:, first], table[:, rest], offset=0)
        covered = (overlap >= table.dtype.type(iou_threshold)) & left[rest]
        left[rest] ^= covered
        members = first + 1 + np.flatnonzero(covered)
        groups.append([first, *members.tolist()])
    ranks = order.tolist()
    return [[ranks[member] for member in group] for group in groups]


def _columns(boxes: Tensor, scores: Tensor, offset: int) -> np.ndarray:
    """Lay boxes out as rows x1, y1, x2, y2, area, score of a (6, N) array."""
    rows = (*boxes.unbind(1), _areas(boxes, offset), scores.to(boxes))
    return torch.stack(rows).numpy()


def _areas(boxes: Tensor, offset: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1 + offset) * (y2 - y1 + offset)


def _overlap(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """Intersection over union of one column with the columns of ``others``."""
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]) + offset
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]) + offset
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    # Two boxes without area give 0 / 0, which no threshold is reached by.
    with np.errstate(invalid='ignore', divide='ignore'):
        return shared / (box[_AREA] + others[_AREA] - shared)


def _best(scores: np.ndarray) -> int:
    """First of the largest; the gaussian of 0 / 0 is no number and loses."""
    best = int(scores.argmax())
    if np.isnan(scores[best]) and not np.isnan(scores[0]):
        best = int(np.nanargmax(scores))
    return best


def _decay(
    overlap: np.ndarray, iou_threshold: float, sigma: float, method: int
) -> np.ndarray:
    real = overlap.dtype.type
    if method == _NAIVE:
        return np.where(overlap >= real(iou_threshold), real(0), real(1))
    if method == _LINEAR:
        return np.where(overlap >= real(iou_threshold), 1 - overlap, real(1))
    return np.exp(-(overlap * overlap) / real(sigma))


def _close_gaps(table: np.ndarray, indices: np.ndarray, kept: np.ndarray) -> int:
    """Move kept columns to the front, from the last one on into the first gap.

    This is the order mmcv ends up with; it decides between equal scores.

    Returns:
        Number of kept columns.
    """
    count = int(kept.sum())
    gaps = np.flatnonzero(~kept[:count])
    movers = count + np.flatnonzero(kept[count:])[::-1]
    table[:, gaps] = table[:, movers]
    indices[gaps] = indices[movers]
    return count


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Overlap of boxes with boxes (mmcv.ops.bbox_overlaps).

    Args:
        bboxes1: (M, 4) as x1, y1, x2, y2.
        bboxes2: (N, 4).
        ious: (M, N), or (M,) if aligned; filled in place.
        mode: 0 divides by the union, 1 by the area of the first box.
        aligned: Compare box i with box i only; N equals M.
        offset: 0, or 1 for boxes whose width is x2 - x1 + 1.
    """
    areas1, areas2 = _areas(bboxes1, offset), _areas(bboxes2, offset)
    if not aligned:
        bboxes1, areas1 = bboxes1[:, None], areas1[:, None]
    top_left = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    bottom_right = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    width, height = (bottom_right - top_left + offset).clamp(min=0).unbind(-1)
    shared = width * height
    ious.copy_(shared / (areas1 + areas2 - shared if mode == 0 else areas1))


OPERATORS = (nms, softnms, nms_match, bbox_overlaps)
