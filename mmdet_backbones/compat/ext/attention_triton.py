"""Multi-scale deformable attention for GPUs, in Triton.

As mmcv's kernels, which a thread per output runs, these keep nothing between input and
output: memory beside the tensors that the caller holds is that of the gradient of the
value, in float32, where that gradient is of half precision.
"""

# Triton reads the types of arguments when it is called.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows times channels that one program holds at a time.
_TILE = 1024


@triton.jit
def _sample_place(
    location, place, here, height, width, start, first, stride, real: tl.constexpr
):
    """Fractions right of and below the upper left pixel, that pixel, and who has it."""
    u = tl.load(location + 2 * place, here, 0).to(real) * width.to(real) - 0.5
    v = tl.load(location + 2 * place + 1, here, 0).to(real) * height.to(real) - 0.5
    inside = here & (u > -1) & (u < width) & (v > -1) & (v < height)
    # What is no number would be one times zero in a sum.
    u, v = tl.where(inside, u, 0), tl.where(inside, v, 0)
    left, top = tl.floor(u), tl.floor(v)
    x, y = left.to(tl.int64), top.to(tl.int64)
    pixel = first + (start + y * width + x) * stride
    west, east = inside & (x >= 0), inside & (x + 1 < width)
    north, south = y >= 0, y + 1 < height
    nw, ne, sw, se = west & north, east & north, west & south, east & south
    return u - left, v - top, pixel, nw, ne, sw, se


@triton.jit
def _rows(rows, queries, heads, pixels, channels, tile: tl.constexpr):
    """Rows (image, query, head) of a program, and where the values of each begin."""
    row = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    image = row // (queries * heads)
    first = (image * pixels * heads + row % heads) * channels
    return row, row < rows, first


@triton.jit
def _attend(
    value, shapes, starts, location, weight, out,
    rows, queries, heads, pixels, channels, levels, points,
    tile: tl.constexpr, wide: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    row, here, first = _rows(rows, queries, heads, pixels, channels, tile)
    channel = tl.arange(0, wide)
    known = (channel < channels)[None, :]
    stride = heads * channels
    total = tl.zeros((tile, wide), real)
    for level in range(levels):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        start = tl.load(starts + level)
        for point in range(points):
            place = (row * levels + level) * points + point
            right, below, pixel, nw, ne, sw, se = _sample_place(
                location, place, here, height, width, start, first, stride, real
            )
            share = tl.load(weight + place, here, 0).to(real)
            at = value + pixel[:, None] + channel[None, :]
            south = at + width * stride
            a = tl.load(at, nw[:, None] & known, 0).to(real)
            b = tl.load(at + stride, ne[:, None] & known, 0).to(real)
            c = tl.load(south, sw[:, None] & known, 0).to(real)
            d = tl.load(south + stride, se[:, None] & known, 0).to(real)
            total += (share * (1 - below) * (1 - right))[:, None] * a
            total += (share * (1 - below) * right)[:, None] * b
            total += (share * below * (1 - right))[:, None] * c
            total += (share * below * right)[:, None] * d
    at = out + row[:, None] * channels + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), here[:, None] & known)


@triton.jit
def _push(value, grad_value, at, has, back, share, real: tl.constexpr):
    """Add to the gradient of one pixel; returns the pixel times what comes back."""
    tl.atomic_add(grad_value + at, share[:, None] * back, has, sem='relaxed')
    return tl.sum(tl.load(value + at, has, 0).to(real) * back, 1)


@triton.jit
def _attend_back(
    value, shapes, starts, location, weight, grad, grad_value, grad_location,
    grad_weight, rows, queries, heads, pixels, channels, levels, points,
    tile: tl.constexpr, wide: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    row, here, first = _rows(rows, queries, heads, pixels, channels, tile)
    channel = tl.arange(0, wide)
    known = (channel < channels)[None, :]
    stride = heads * channels
    at = grad + row[:, None] * channels + channel[None, :]
    back = tl.load(at, here[:, None] & known, 0).to(real)
    for level in range(levels):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        start = tl.load(starts + level)
        for point in range(points):
            place = (row * levels + level) * points + point
            right, below, pixel, nw, ne, sw, se = _sample_place(
                location, place, here, height, width, start, first, stride, real
            )
            share = tl.load(weight + place, here, 0).to(real)
            left, above = 1 - right, 1 - below
            north = pixel[:, None] + channel[None, :]
            south = north + width * stride
            a = _push(value, grad_value, north, nw[:, None] & known, back,
                      share * above * left, real)  # fmt: skip
            b = _push(value, grad_value, north + stride, ne[:, None] & known, back,
                      share * above * right, real)  # fmt: skip
            c = _push(value, grad_value, south, sw[:, None] & known, back,
                      share * below * left, real)  # fmt: skip
            d = _push(value, grad_value, south + stride, se[:, None] & known, back,
                      share * below * right, real)  # fmt: skip
            sample = above * (left * a + right * b) + below * (left * c + right * d)
            slope_x = share * width.to(real) * (above * (b - a) + below * (d - c))
            slope_y = share * height.to(real) * (left * (c - a) + right * (d - b))
            tl.store(grad_weight + place, sample, here)
            tl.store(grad_location + 2 * place, slope_x, here)
            tl.store(grad_location + 2 * place + 1, slope_y, here)


def attend(
    value: Tensor, shapes: Tensor, starts: Tensor, location: Tensor, weight: Tensor
) -> Tensor:
    """As :func:`.attention.ms_deform_attn_forward`; sums are in float32 at least.

    Nothing waits for the device, so that a CUDA graph can hold it.
    """
    value = value.contiguous()
    batch, _, heads, channels = value.shape
    queries = location.shape[1]
    out = value.new_empty(batch, queries, heads * channels)
    _launch(_attend, value, shapes, starts, location, weight, (out,))
    return out


def attend_back(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    location: Tensor,
    weight: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, location and weight; sums are in float32 at least.

    Additions to the value's gradient come in any order, as those of mmcv's kernel.
    """
    value = value.contiguous()
    # Atomic additions of half precision would lose what is small.
    total = torch.zeros_like(
        value, dtype=torch.promote_types(value.dtype, torch.float32)
    )
    location, weight = location.contiguous(), weight.contiguous()
    grads = (torch.empty_like(location), torch.empty_like(weight))
    back = (grad.contiguous(), total, *grads)
    _launch(_attend_back, value, shapes, starts, location, weight, back)
    return total.to(value.dtype), *grads


def _launch(kernel, value, shapes, starts, location, weight, results) -> None:
    batch, pixels, heads, channels = value.shape
    _, queries, _, levels, points, _ = location.shape
    rows = batch * queries * heads
    if rows * channels == 0:
        return
    wide = triton.next_power_of_2(channels)
    high = max(_TILE // wide, 1)
    table = (
        part.to(value.device, torch.int64).contiguous() for part in (shapes, starts)
    )
    real = tl.float64 if value.dtype == torch.float64 else tl.float32
    # Triton launches on the device of now.
    with torch.cuda.device_of(value):
        kernel[(triton.cdiv(rows, high),)](
            value, *table, location.contiguous(), weight.contiguous(), *results,
            rows, queries, heads, pixels, channels, levels, points,
            tile=high, wide=wide, real=real,
        )  # fmt: skip
