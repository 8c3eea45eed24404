"""CARAFE, upsampling with a predicted kernel for each output pixel.

Plain torch. Semantics of mmcv 2.1.0 (``csrc/common/cuda/carafe*_cuda_kernel.cuh``),
which has no CPU kernel. The naive variant computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Reassemble features around each output pixel (mmcv.ops.carafe).

    Args:
        features: (B, C, H, W).
        masks: (B, group_size * kernel_size ** 2, S * H, S * W) with S the scale
            factor.
        rfeatures: Like ``features``; filled with them, for the backward pass.
        routput: Scratch memory of mmcv's kernel, not used.
        rmasks: Scratch memory of mmcv's kernel, not used.
        output: (B, C, S * H, S * W), filled in place.
        kernel_size: Odd side of the window.
        group_size: Groups of channels with kernels of their own.
        scale_factor: S.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of `carafe_forward`.

    Args:
        top_grad: (B, C, S * H, S * W).
        rfeatures: (B, C, H, W), what the forward pass left there.
        rtop_grad, rbottom_grad_hs, rbottom_grad, rmask_grad: Scratch memory of
            mmcv's kernel, not used.
        bottom_grad: (B, C, H, W), filled in place.
        mask_grad: Like ``masks``, filled in place.
        masks, kernel_size, group_size, scale_factor: As in the forward pass.
    """
    carafe_naive_backward(
        top_grad,
        rfeatures,
        masks,
        bottom_grad,
        mask_grad,
        kernel_size,
        group_size,
        scale_factor,
    )


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Reassemble features around each output pixel (mmcv.ops.carafe_naive).

    Args:
        features, masks, output, kernel_size, group_size, scale_factor: As in
            `carafe_forward`.
    """
    source = _split_channels(features, group_size)
    kernels = _split_pixels(masks, group_size, scale_factor)
    batch, groups, channels, height, width = source.shape
    total = source.new_zeros(
        batch, groups, channels, height, scale_factor, width, scale_factor
    )
    for tap, window in _windows(source, kernel_size):
        total.addcmul_(window[..., None, :, None], kernels[:, :, tap, None])
    output.copy_(total.view_as(output))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of `carafe_naive_forward`.

    Args:
        top_grad: (B, C, S * H, S * W).
        bottom_grad: (B, C, H, W), filled in place.
        mask_grad: Like ``masks``, filled in place.
        features, masks, kernel_size, group_size, scale_factor: As in the forward
            pass.
    """
    # Pixels first, channels last: each pixel is one product of small matrices.
    source = _split_channels(features, group_size).movedim(2, -1).contiguous()
    kernels = _split_pixels(masks, group_size, scale_factor)
    kernels = kernels.movedim(4, 5).flatten(5).contiguous()
    grad = _split_channels(top_grad, group_size)
    grad = grad.unflatten(4, (-1, scale_factor)).unflatten(3, (-1, scale_factor))
    grad = grad.permute(0, 1, 3, 5, 2, 4, 6).flatten(5).contiguous()
    half = kernel_size // 2
    # A margin takes what falls outside the image.
    padded = F.pad(source, (0, 0, half, half, half, half))
    spread = torch.zeros_like(padded)
    kernel_grad = torch.empty_like(kernels)
    height, width = source.shape[2:4]
    for tap in range(kernel_size**2):
        top, left = divmod(tap, kernel_size)
        place = (..., slice(top, top + height), slice(left, left + width), slice(None))
        spread[place] += (grad @ kernels[:, :, tap, ..., None]).squeeze(-1)
        window = padded[place][..., None, :]
        kernel_grad[:, :, tap] = (window @ grad).squeeze(-2)
    inner = spread[:, :, half : half + height, half : half + width]
    bottom_grad.copy_(inner.movedim(-1, 2).reshape(bottom_grad.shape))
    kernel_grad = kernel_grad.unflatten(5, (scale_factor, -1)).movedim(5, 4)
    mask_grad.copy_(kernel_grad.reshape(mask_grad.shape))


def _split_channels(values: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) as (B, G, C / G, H, W)."""
    return values.unflatten(1, (groups, -1))


def _split_pixels(masks: Tensor, groups: int, scale: int) -> Tensor:
    """(B, G * T, S * H, S * W) as (B, G, T, H, S, W, S)."""
    height, width = masks.shape[2] // scale, masks.shape[3] // scale
    return masks.reshape(masks.shape[0], groups, -1, height, scale, width, scale)


def _windows(source: Tensor, kernel_size: int) -> Iterator[tuple[int, Tensor]]:
    """The source moved to each tap of the kernel, zeros outside."""
    half = kernel_size // 2
    padded = F.pad(source, (half, half, half, half))
    height, width = source.shape[-2:]
    for tap in range(kernel_size**2):
        top, left = divmod(tap, kernel_size)
        yield tap, padded[..., top : top + height, left : left + width]


OPERATORS = (
    carafe_forward,
    carafe_backward,
    carafe_naive_forward,
    carafe_naive_backward,
)
