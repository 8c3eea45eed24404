"""RoI align, average and maximum.

The average is torchvision's kernel, the maximum plain torch. Semantics of mmcv
2.1.0 (``csrc/pytorch/cpu/roi_align.cpp``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_backbones.compat.ext.float32 import round_to_float32
from mmdet_backbones.compat.ext.kernels import torchvision_kernels
from mmdet_backbones.compat.ext.roi_grid import (
    corners_of,
    find_corners,
    gather,
    make_grid,
    pixel_rows,
    scatter,
    split_rois,
)

_MAXIMUM = 0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool features inside regions (mmcv.ops.roi_align).

    Args:
        input: (B, C, H, W).
        rois: (R, 5) as image index, x1, y1, x2, y2.
        output: (R, C, PH, PW), filled in place.
        argmax_y: (R, C, PH, PW), row of the largest sample, filled in place; only
            with the maximum.
        argmax_x: The same for its column.
        aligned_height: PH.
        aligned_width: PW.
        spatial_scale: Feature pixels per image pixel.
        sampling_ratio: Samples down and across in a bin; 0 for about one a pixel.
        pool_mode: 0 maximum, 1 average.
        aligned: Pixel centres lie at half coordinates.

    Raises:
        ValueError: If a region has a negative size (aligned, on the CPU; on CUDA
            looking would stall the device, and neither does mmcv look there).
    """
    spatial_scale = round_to_float32(spatial_scale)
    pooled = (aligned_height, aligned_width)
    if aligned and not rois.is_cuda:
        _check_sizes(rois)
    if pool_mode == _MAXIMUM:
        _pool_maximum(
            input,
            rois,
            (output, argmax_y, argmax_x),
            (spatial_scale, sampling_ratio, aligned),
        )
        return
    output.copy_(
        torchvision_kernels().roi_align(
            input, rois, spatial_scale, *pooled, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` for its features.

    Args:
        grad_output: (R, C, PH, PW).
        grad_input: (B, C, H, W), filled in place.
        rois, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale,
            sampling_ratio, pool_mode, aligned: As in the forward pass.
    """
    if pool_mode == _MAXIMUM:
        _spread_maximum(grad_output, rois, argmax_y, argmax_x, grad_input)
        return
    spatial_scale = round_to_float32(spatial_scale)
    if grad_output.is_cuda and torch.are_deterministic_algorithms_enabled():
        # torchvision's kernel adds atomically and refuses to run here.
        settings = (spatial_scale, sampling_ratio, aligned)
        _spread_average(grad_output, rois, grad_input, settings)
        return
    grad_input.copy_(
        torchvision_kernels()._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _check_sizes(rois: Tensor) -> None:
    bad = ~(rois[:, 3:] >= rois[:, 1:3]).all(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            'RoIAlign(aligned=True) expects x2 >= x1 and y2 >= y1, got '
            f'{rois[first, 1:].tolist()} as (x1, y1, x2, y2) of RoI {first}'
        )


def _pool_maximum(
    features: Tensor,
    rois: Tensor,
    results: tuple[Tensor, Tensor, Tensor],
    settings: tuple[float, int, bool],
) -> None:
    output, argmax_y, argmax_x = results
    channels, height, width = features.shape[1:]
    pooled = (output.shape[2], output.shape[3])
    grid = make_grid(rois, pooled, *settings)
    rows = pixel_rows(features)
    # The value of a bin without samples; the two kernels of mmcv differ.
    lowest = torch.finfo(torch.float32).min if features.is_cuda else -10000.0
    samples = grid.used.shape[-1]
    for run in split_rois(len(rois), pooled[0] * pooled[1] * samples, channels):
        values = gather(rows, corners_of(grid, run, height, width))
        values.masked_fill_(~grid.used[run, ..., None], -torch.inf)
        if samples == 0:
            values = values.new_full((*values.shape[:3], 1, channels), -torch.inf)
        best, index = values.max(3)
        found = best > lowest
        index = index.clamp(max=max(samples - 1, 0))
        rows_at, columns_at = _sample_at(grid.y[run], grid.x[run], index)
        output[run] = _channels_first(torch.where(found, best, lowest))
        argmax_y[run] = _channels_first(torch.where(found, rows_at, -1.0))
        argmax_x[run] = _channels_first(torch.where(found, columns_at, -1.0))


def _sample_at(y: Tensor, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (R, PH, PW, C) of the samples with a flat index in their bin."""
    if y.shape[-1] == 0 or x.shape[-1] == 0:
        nowhere = y.new_full(index.shape, -1.0)
        return nowhere, nowhere
    return (
        y.gather(3, index // x.shape[-1]),
        x.gather(3, index % x.shape[-1]),
    )


def _channels_first(values: Tensor) -> Tensor:
    return values.permute(0, 3, 1, 2)


def _spread_maximum(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
) -> None:
    channels, height, width = grad_input.shape[1:]
    # One plane for each image and channel: the samples differ by channel.
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(
        channels, device=rois.device
    )
    corners = find_corners(argmax_y, argmax_x, plane[:, :, None, None], height, width)
    # mmcv marks bins without a sample with a row of -1.
    grad = torch.where(argmax_y == -1, 0, grad_output)
    flat = grad_input.new_zeros(grad_input.numel(), 1)
    scatter(flat, corners, grad[..., None])
    grad_input.copy_(flat.view_as(grad_input))


def _spread_average(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    settings: tuple[float, int, bool],
) -> None:
    channels, height, width = grad_input.shape[1:]
    pooled = (grad_output.shape[2], grad_output.shape[3])
    grid = make_grid(rois, pooled, *settings)
    grad_rows = torch.zeros_like(pixel_rows(grad_input))
    points = pooled[0] * pooled[1] * grid.used.shape[-1]
    for run in split_rois(len(rois), points, channels):
        count = grid.count[run].clamp(min=1).to(grad_output)
        share = grad_output[run].permute(0, 2, 3, 1) / count
        corners = corners_of(grid, run, height, width)
        scatter(grad_rows, corners, share[..., None, :])
    batch = grad_input.shape[0]
    image = grad_rows.view(batch, height, width, channels)
    grad_input.copy_(image.permute(0, 3, 1, 2))


OPERATORS = (roi_align_forward, roi_align_backward)
