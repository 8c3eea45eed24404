"""RoI max pooling over whole pixels.

Plain torch: torchvision rounds the corners of a region, mmcv 2.1.0 does not
(``csrc/common/cuda/roi_pool_cuda_kernel.cuh``). mmcv has no CPU kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_backbones.compat.ext.float32 import round_to_float32
from mmdet_backbones.compat.ext.kernels import torchvision_kernels
from mmdet_backbones.compat.ext.roi_grid import pixel_rows, split_rois


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
            grad_output,
            rois,
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


OPERATORS = (roi_pool_forward, roi_pool_backward)
