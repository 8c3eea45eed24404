"""Bilinear sampling inside the bins of regions of interest, in plain torch.

Shared by the RoI operators that torchvision does not have. Coordinates and
weights follow ``csrc/pytorch/cpu/roi_align.cpp`` of mmcv 2.1.0: no rounding of
the region, samples up to one pixel outside the image count as on its border,
samples further out count as zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_POINTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class RoIGrid:
    """Where each bin of R regions is sampled.

    Attributes:
        image: (R,) index of the image in the batch.
        y: (R, PH, PW, GH) rows of the samples of a bin.
        x: (R, PH, PW, GW) columns of the samples of a bin.
        used: (R, 1, 1, GH * GW) which samples a region has; the regions of a
            batch may differ in their number of samples.
        count: (R, 1, 1, 1) number of samples in a bin.
        size: (R, 2) width and height of the regions in feature pixels.
    """

    image: Tensor
    y: Tensor
    x: Tensor
    used: Tensor
    count: Tensor
    size: Tensor

    def runs(self, channels: int) -> Iterator[slice]:
        """Cut the regions into runs whose samples fit into memory together."""
        regions, height, width, _ = self.y.shape
        yield from split_rois(regions, height * width * self.used.shape[-1], channels)


def make_grid(
    rois: Tensor,
    pooled: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    offset: Tensor | None = None,
) -> RoIGrid:
    """Place the samples of each bin.

    Args:
        rois: (R, 5) as image index, x1, y1, x2, y2 in image pixels.
        pooled: Number of bins down and across, (PH, PW).
        spatial_scale: Feature pixels per image pixel.
        sampling_ratio: Samples down and across in a bin; 0 for about one a pixel.
        aligned: Pixel centres lie at half coordinates; otherwise regions are
            at least one pixel large.
        offset: (R, 2, PH, PW) displacement of each bin, x then y, in multiples of
            the size of the region.
    """
    scaled = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start, size = scaled[:, :2], scaled[:, 2:] - scaled[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    bins = size / size.new_tensor(pooled[::-1])
    if sampling_ratio > 0:
        counts = torch.full_like(bins, sampling_ratio, dtype=torch.long)
    else:
        counts = bins.float().ceil().long().clamp(min=0)
    most_x, most_y = counts.amax(0).tolist() if len(rois) else (1, 1)
    x = _axis(start[:, 0], bins[:, 0], counts[:, 0], pooled[1], most_x)[:, None]
    y = _axis(start[:, 1], bins[:, 1], counts[:, 1], pooled[0], most_y)[:, :, None]
    if offset is not None:
        start_shift = (size[:, :, None, None] * offset)[..., None]
        x, y = x + start_shift[:, 0], y + start_shift[:, 1]
    steps_x = torch.arange(most_x, device=rois.device)
    steps_y = torch.arange(most_y, device=rois.device)
    used = (steps_y[:, None] < counts[:, 1, None, None]) & (
        steps_x < counts[:, 0, None, None]
    )
    return RoIGrid(
        image=rois[:, 0].long(),
        y=y.expand(-1, -1, pooled[1], -1),
        x=x.expand(-1, pooled[0], -1, -1),
        used=used.flatten(1)[:, None, None],
        count=counts.prod(1)[:, None, None, None],
        size=size,
    )


def _axis(
    start: Tensor, bin_size: Tensor, count: Tensor, bins: int, most: int
) -> Tensor:
    """Coordinates along one axis, (R, bins, most)."""
    index = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None]
    step = torch.arange(most, device=start.device, dtype=start.dtype) + 0.5
    start, bin_size = start[:, None, None], bin_size[:, None, None]
    inside = step * bin_size / count.clamp(min=1)[:, None, None].to(start)
    return start + index * bin_size + inside


def split_rois(rois_count: int, points_per_roi: int, channels: int) -> Iterator[slice]:
    """Cut R regions into runs whose samples fit into memory together."""
    run = max(1, _POINTS_AT_ONCE // max(1, points_per_roi * channels))
    for first in range(0, rois_count, run):
        yield slice(first, first + run)


def pixel_rows(features: Tensor) -> Tensor:
    """Lay features (B, C, H, W) out as one row of C values a pixel, (B*H*W, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


@dataclass(frozen=True)
class Corners:
    """The four pixels around each sample, in the order 00, 01, 10, 11 (y, x).

    Attributes:
        rows: Four index tensors of one shape S into the rows of `pixel_rows`.
        weights: Four tensors of shape S, all zero for samples that do not count.
        y_low, y_high, x_low, x_high: Pixel coordinates, of shape S.
        inside: Of shape S, whether the sample counts: it is used, and in the image.
    """

    rows: tuple[Tensor, Tensor, Tensor, Tensor]
    weights: tuple[Tensor, Tensor, Tensor, Tensor]
    y_low: Tensor
    y_high: Tensor
    x_low: Tensor
    x_high: Tensor
    inside: Tensor


def find_corners(
    y: Tensor,
    x: Tensor,
    image: Tensor,
    height: int,
    width: int,
    used: Tensor | None = None,
) -> Corners:
    """Find pixels and bilinear weights of samples.

    Args:
        y: Rows of the samples, any shape that broadcasts with ``x`` and ``image``.
        x: Columns of the samples.
        image: Index of the image in the batch.
        height: Height of the feature map.
        width: Width of the feature map.
        used: Which samples there are; all by default.
    """
    y, x = torch.broadcast_tensors(y, x)
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    if used is not None:
        inside &= used
    y_low, y_high, ly = _neighbours(y, height)
    x_low, x_high, lx = _neighbours(x, width)
    hy, hx = 1 - ly, 1 - lx
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    weights = [
        torch.where(inside, weight, zero)
        for weight in (hy * hx, hy * lx, ly * hx, ly * lx)
    ]
    top, bottom = (image * height + y_low) * width, (image * height + y_high) * width
    return Corners(
        rows=(top + x_low, top + x_high, bottom + x_low, bottom + x_high),
        weights=(weights[0], weights[1], weights[2], weights[3]),
        y_low=y_low,
        y_high=y_high,
        x_low=x_low,
        x_high=x_high,
        inside=inside,
    )


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    position = position.clamp(0, length - 1).nan_to_num(0)
    low = position.long()
    return low, (low + 1).clamp(max=length - 1), position - low


def corners_of(grid: RoIGrid, run: slice, height: int, width: int) -> Corners:
    """Corners of a run of regions, tensors of shape (R, PH, PW, GH * GW)."""
    y, x = torch.broadcast_tensors(grid.y[run, ..., None], grid.x[run, ..., None, :])
    image = grid.image[run, None, None, None]
    y, x = y.flatten(3), x.flatten(3)
    return find_corners(y, x, image, height, width, grid.used[run])


def gather(rows: Tensor, corners: Corners) -> Tensor:
    """Interpolate features at samples of shape S to values of shape (*S, C)."""
    total: Tensor | None = None
    for index, weight in zip(corners.rows, corners.weights, strict=True):
        part = rows[index].mul_(weight[..., None])
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def scatter(grad_rows: Tensor, corners: Corners, grad: Tensor) -> None:
    """Add gradients (*S, C) of samples to the pixels they came from, in place.

    One gradient for all samples of a bin has the size 1 in their dimension.
    """
    channels = grad_rows.shape[1]
    for index, weight in zip(corners.rows, corners.weights, strict=True):
        part = (grad * weight[..., None]).reshape(-1, channels)
        grad_rows.index_add_(0, index.reshape(-1), part)
