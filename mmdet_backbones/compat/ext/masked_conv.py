"""The two halves of a convolution at chosen pixels only.

Plain torch. Semantics of mmcv 2.1.0
(``csrc/common/cuda/masked_conv2d_cuda_kernel.cuh``), which has no CPU kernel and
no backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Copy the windows at K pixels into columns (mmcv.ops.masked_conv2d).

    Args:
        im: (1, C, H, W).
        mask_h_idx: (K,) row of the windows.
        mask_w_idx: (K,) column of the windows.
        col: (C * kernel_h * kernel_w, K), filled in place.
        kernel_h: Height of the windows.
        kernel_w: Width of the windows.
        pad_h: Rows of zeros around the image.
        pad_w: Columns of zeros around the image.
    """
    image = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    down = torch.arange(kernel_h, device=im.device).view(-1, 1, 1)
    across = torch.arange(kernel_w, device=im.device).view(1, -1, 1)
    rows, columns = mask_h_idx + down, mask_w_idx + across
    col.copy_(image[:, rows, columns].view(col.shape))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write K columns to their pixels (mmcv.ops.masked_conv2d).

    Args:
        col: (C, K).
        mask_h_idx: (K,) row of the pixels.
        mask_w_idx: (K,) column of the pixels.
        im: (1, C, height, width), written at the K pixels in place.
        height: Height of the image.
        width: Width of the image.
        channels: C.
    """
    im[0, :, mask_h_idx, mask_w_idx] = col


OPERATORS = (masked_im2col_forward, masked_col2im_forward)
