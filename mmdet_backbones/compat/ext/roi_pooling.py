"""RoI align (average, maximum), RoI align with displaced bins, RoI max pooling.

RoI align follows mmcv 2.1.0's ``csrc/pytorch/cpu/roi_align.cpp``; its average is
torchvision's kernel, its maximum plain torch. The other two are plain torch by
``csrc/common/cuda/deform_roi_pool_cuda_kernel.cuh`` and ``roi_pool_cuda_kernel.cuh``,
for mmcv has no CPU kernel of them. torchvision's RoI pool rounds the corners of a
region, mmcv's does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import in_float32, round_to_float32, torchvision_kernels
from .roi_grid import (
    Corners,
    RoIGrid,
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
            *in_float32(input, rois), spatial_scale, *pooled, sampling_ratio, aligned
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
    # In float16 this kernel takes more than twice as long as in float32 on CUDA.
    grad_input.copy_(
        torchvision_kernels()._roi_align_backward(
            *in_float32(grad_output, rois, half=True),
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
    for run in grid.runs(channels):
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
    batch, channels, height, width = grad_input.shape
    grid = make_grid(rois, (grad_output.shape[2], grad_output.shape[3]), *settings)
    grad_rows = torch.zeros_like(pixel_rows(grad_input))
    for run in grid.runs(channels):
        count = grid.count[run].clamp(min=1).to(grad_output)
        share = grad_output[run].permute(0, 2, 3, 1) / count
        scatter(grad_rows, corners_of(grid, run, height, width), share[..., None, :])
    image = grad_rows.view(batch, height, width, channels)
    grad_input.copy_(image.permute(0, 3, 1, 2))


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
    for run in grid.runs(channels):
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
    for run in grid.runs(channels):
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


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the largest pixel of each bin (mmcv.ops.roi_pool).

    A bin without pixels gives 0 and the index -1. So does a region without area,
    for which the kernel of mmcv leaves index 0 and a gradient for pixel (0, 0).

    Args:
        input: (B, C, H, W).
        rois: (R, 5) as image index, x1, y1, x2, y2; the last pixel is inside.
        output: (R, C, PH, PW), filled in place.
        argmax: (R, C, PH, PW), index into H * W, filled in place.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Feature pixels per image pixel.
    """
    channels, height, width = input.shape[1:]
    scale = round_to_float32(spatial_scale)
    start, end = rois[:, 1:3] * scale, (rois[:, 3:] + 1) * scale
    area = ((end - start) > 0).all(1)
    image = rois[:, 0].long() * (height * width)
    left, right = _bins(start[:, 0], end[:, 0], pooled_width, width)
    top, bottom = _bins(start[:, 1], end[:, 1], pooled_height, height)
    bottom = torch.where(area[:, None], bottom, top)
    most_x, most_y = _widest(left, right), _widest(top, bottom)
    rows = pixel_rows(input)
    points = pooled_height * pooled_width * most_x * most_y
    for run in split_rois(len(rois), points, channels):
        x, x_used = _span(left[run], right[run], most_x, width)
        y, y_used = _span(top[run], bottom[run], most_y, height)
        pixel = (y[:, :, None, :, None] * width + x[:, None, :, None, :]).flatten(3)
        used = y_used[:, :, None, :, None] & x_used[:, None, :, None, :]
        values = rows[pixel + image[run, None, None, None]]
        values.masked_fill_(~used.flatten(3)[..., None], -torch.inf)
        best, index = values.max(3)
        found = best > torch.finfo(torch.float32).min
        where = torch.where(found, pixel.gather(3, index), -1)
        output[run] = torch.where(found, best, 0).permute(0, 3, 1, 2)
        argmax[run] = where.permute(0, 3, 1, 2).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of `roi_pool_forward` for its features.

    Args:
        grad_output: (R, C, PH, PW).
        grad_input: (B, C, H, W), filled in place.
        rois, argmax, pooled_height, pooled_width, spatial_scale: As in the
            forward pass.
    """
    grad_input.copy_(
        torchvision_kernels()._roi_pool_backward(
            *in_float32(grad_output, rois),
            argmax,
            round_to_float32(spatial_scale),
            pooled_height,
            pooled_width,
            *grad_input.shape,
        )
    )


def _bins(start: Tensor, end: Tensor, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """First pixel of each bin and the one after its last, (R, bins) each."""
    step = ((end - start) / bins)[:, None]
    index = torch.arange(bins, device=start.device, dtype=start.dtype)
    first = (index * step + start[:, None]).floor()
    last = ((index + 1) * step + start[:, None]).ceil()
    return first.clamp(0, length).long(), last.clamp(0, length).long()


def _widest(first: Tensor, last: Tensor) -> int:
    return max(1, int((last - first).max())) if len(first) else 1


def _span(first: Tensor, last: Tensor, most: int, length: int) -> tuple[Tensor, Tensor]:
    """Pixels of each bin along one axis and which of them it has, (R, bins, most)."""
    pixel = first[..., None] + torch.arange(most, device=first.device)
    return pixel.clamp(max=length - 1), pixel < last[..., None]


OPERATORS = (
    roi_align_forward,
    roi_align_backward,
    deform_roi_pool_forward,
    deform_roi_pool_backward,
    roi_pool_forward,
    roi_pool_backward,
)
