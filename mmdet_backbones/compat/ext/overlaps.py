"""Overlaps of axis-aligned boxes."""

from __future__ import annotations

import torch
from torch import Tensor


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
    areas1 = _area(bboxes1, offset)
    areas2 = _area(bboxes2, offset)
    if not aligned:
        bboxes1, areas1 = bboxes1[:, None], areas1[:, None]
    top_left = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    bottom_right = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    width, height = (bottom_right - top_left + offset).clamp(min=0).unbind(-1)
    shared = width * height
    ious.copy_(shared / (areas1 + areas2 - shared if mode == 0 else areas1))


def _area(boxes: Tensor, offset: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1 + offset) * (y2 - y1 + offset)


OPERATORS = (bbox_overlaps,)
