"""RoI align with a learned displacement of each bin.

Plain torch. Semantics of mmcv 2.1.0
(``csrc/common/cuda/deform_roi_pool_cuda_kernel.cuh``), which has no CPU kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_backbones.compat.ext.float32 import round_to_float32
from mmdet_backbones.compat.ext.roi_grid import (
    Corners,
    RoIGrid,
    corners_of,
    gather,
    make_grid,
    pixel_rows,
    scatter,
    split_rois,
)


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Average features inside displaced bins (mmcv.ops.deform_roi_pool).

    Args:
        input: (B, C, H, W).
        rois: (R, 5) as image index, x1, y1, x2, y2.
        offset: (R, 2, PH, PW), x then y, in multiples of gamma times the size of
            the region; empty for none.
        output: (R, C, PH, PW), filled in place.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Feature pixels per image pixel.
        sampling_ratio: Samples down and across in a bin; 0 for about one a pixel.
        gamma: Scale of the offsets.
    """
    pooled = (pooled_height, pooled_width)
    grid = _make_grid(rois, offset, pooled, (spatial_scale, sampling_ratio, gamma))
    channels, height, width = input.shape[1:]
    rows = pixel_rows(input)
    points = pooled_height * pooled_width * grid.used.shape[-1]
    for run in split_rois(len(rois), points, channels):
        values = gather(rows, corners_of(grid, run, height, width))
        mean = values.sum(3) / grid.count[run].clamp(min=1).to(values)
        output[run] = mean.permute(0, 3, 1, 2)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Gradients of `deform_roi_pool_forward` for features and offsets.

    Args:
        grad_output: (R, C, PH, PW).
        grad_input: (B, C, H, W), filled in place.
        grad_offset: (R, 2, PH, PW), filled in place; empty if ``offset`` is.
        input, rois, offset, pooled_height, pooled_width, spatial_scale,
            sampling_ratio, gamma: As in the forward pass.
    """
    pooled = (pooled_height, pooled_width)
    grid = _make_grid(rois, offset, pooled, (spatial_scale, sampling_ratio, gamma))
    batch, channels, height, width = input.shape
    rows = pixel_rows(input)
    grad_rows = torch.zeros_like(rows)
    points = pooled_height * pooled_width * grid.used.shape[-1]
    for run in split_rois(len(rois), points, channels):
        corners = corners_of(grid, run, height, width)
        count = grid.count[run].clamp(min=1).to(rows)
        share = grad_output[run].permute(0, 2, 3, 1) / count
        scatter(grad_rows, corners, share[..., None, :])
        if offset.numel():
            slopes = _slopes(rows, corners, share, grid, run)
            extent = round_to_float32(gamma) * grid.size[run, :, None, None]
            grad_offset[run] = extent * slopes
    image = grad_rows.view(batch, height, width, channels)
    grad_input.copy_(image.permute(0, 3, 1, 2))


def _make_grid(
    rois: Tensor,
    offset: Tensor,
    pooled: tuple[int, int],
    settings: tuple[float, int, float],
) -> RoIGrid:
    spatial_scale, sampling_ratio, gamma = settings
    return make_grid(
        rois,
        pooled,
        round_to_float32(spatial_scale),
        sampling_ratio,
        aligned=True,
        offset=round_to_float32(gamma) * offset if offset.numel() else None,
    )


def _slopes(
    rows: Tensor, corners: Corners, share: Tensor, grid: RoIGrid, run: slice
) -> Tensor:
    """Gradient for the position of each bin, (R, 2, PH, PW), x then y."""
    top_left, top_right, bottom_left, bottom_right = (
        (rows[index] @ share[..., None]).squeeze(-1) for index in corners.rows
    )
    # The kernel of mmcv weights with the position before it is moved into the
    # image, so samples on the border have the slope of a continued plane.
    y, x = torch.broadcast_tensors(grid.y[run, ..., None], grid.x[run, ..., None, :])
    y, x = y.flatten(3), x.flatten(3)
    slope_x = (y - corners.y_low) * (bottom_right - bottom_left)
    slope_x += (corners.y_high - y) * (top_right - top_left)
    slope_y = (x - corners.x_low) * (bottom_right - top_right)
    slope_y += (corners.x_high - x) * (bottom_left - top_left)
    slopes = torch.stack((slope_x, slope_y), dim=1)
    return torch.where(corners.inside[:, None], slopes, 0).sum(-1)


OPERATORS = (deform_roi_pool_forward, deform_roi_pool_backward)
