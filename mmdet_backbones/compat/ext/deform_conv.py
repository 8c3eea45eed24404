"""Deformable convolution, plain (v1) and modulated (v2), on torchvision's kernel.

Semantics of mmcv 2.1.0 (``csrc/pytorch/cpu/deform_conv.cpp`` and
``modulated_deform_conv.cpp``).
"""

# The argument names are those of the C++ functions.
# ruff: noqa: N803

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import in_float32, torchvision_kernels

_Pair = tuple[int, int]


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve with displaced samples (mmcv.ops.deform_conv2d).

    Args:
        input: (B, C, H, W).
        weight: (C_out, C / group, kH, kW).
        offset: (B, 2 * deformable_group * kH * kW, H_out, W_out), y before x.
        output: (B, C_out, H_out, W_out), filled in place.
        columns: Scratch memory of mmcv's kernel, not used.
        ones: Scratch memory of mmcv's kernel, not used.
        kW, kH, dW, dH, padW, padH, dilationW, dilationH: Width and height of
            kernel, stride, padding and dilation.
        group: Groups of the convolution.
        deformable_group: Groups of channels with offsets of their own.
        im2col_step: Images that mmcv's kernel handles at once; changes no value.
    """
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    groups = (group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry, groups))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of `deform_conv_forward` for features and offsets.

    Args:
        gradOutput: (B, C_out, H_out, W_out).
        gradInput: (B, C, H, W), filled in place.
        gradOffset: Like ``offset``, filled in place.
        columns: Scratch memory, receives the gradient of the weight.
        input, offset, weight, kW, kH, dW, dH, padW, padH, dilationW, dilationH,
            group, deformable_group, im2col_step: As in the forward pass.
    """
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    grads = _backward(
        (input, weight, offset, None, None),
        gradOutput,
        geometry,
        (group, deformable_group),
    )
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])
    # torchvision computes all gradients at once; mmcv asks for that of the
    # weight next and passes the same scratch tensor.
    columns.resize_(grads[1].shape).copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Gradient of `deform_conv_forward` for its weight.

    Args:
        gradOutput: (B, C_out, H_out, W_out).
        gradWeight: Like ``weight``, added to in place.
        columns: Scratch memory; holds the gradient if `deform_conv_backward_input`
            ran before, and is emptied.
        scale: Factor on the gradient.
        input, offset, ones, kW, kH, dW, dH, padW, padH, dilationW, dilationH,
            group, deformable_group, im2col_step: As in the forward pass.
    """
    if columns.shape == gradWeight.shape:
        gradWeight.add_(columns, alpha=scale)
        columns.resize_(0)
        return
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    grads = _backward(
        (input, torch.zeros_like(gradWeight), offset, None, None),
        gradOutput,
        geometry,
        (group, deformable_group),
    )
    gradWeight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve with displaced and weighted samples (mmcv.ops.modulated_deform_conv2d).

    Args:
        input: (B, C, H, W).
        weight: (C_out, C / group, kernel_h, kernel_w).
        bias: (C_out,), or empty.
        ones: Scratch memory of mmcv's kernel, not used.
        offset: (B, 2 * deformable_group * kernel_h * kernel_w, H_out, W_out), y
            before x.
        mask: (B, deformable_group * kernel_h * kernel_w, H_out, W_out).
        output: (B, C_out, H_out, W_out), filled in place.
        columns: Scratch memory of mmcv's kernel, not used.
        kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h,
            dilation_w: Geometry of the convolution.
        group: Groups of the convolution.
        deformable_group: Groups of channels with offsets of their own.
        with_bias: Whether ``bias`` counts.
    """
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    groups = (group, deformable_group)
    used_bias = bias if with_bias else None
    output.copy_(_forward(input, weight, offset, mask, used_bias, geometry, groups))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of `modulated_deform_conv_forward`.

    Args:
        grad_input, grad_weight, grad_bias, grad_offset, grad_mask: Shaped like the
            tensors they belong to, filled in place; ``grad_bias`` only with a bias.
        grad_output: (B, C_out, H_out, W_out).
        input, weight, bias, ones, offset, mask, columns, kernel_h, kernel_w,
            stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group,
            deformable_group, with_bias: As in the forward pass.
    """
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    grads = _backward(
        (input, weight, offset, mask, bias if with_bias else None),
        grad_output,
        geometry,
        (group, deformable_group),
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    grad_offset.copy_(grads[2])
    grad_mask.copy_(grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


def _forward(
    features: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[_Pair, _Pair, _Pair],
    groups: _Pair,
) -> Tensor:
    numbers = (*geometry[0], *geometry[1], *geometry[2], *groups, mask is not None)
    given = (features, weight, offset, *_filled(features, weight, mask, bias))
    return torchvision_kernels().deform_conv2d(*in_float32(*given), *numbers)


def _backward(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    grad_output: Tensor,
    geometry: tuple[_Pair, _Pair, _Pair],
    groups: _Pair,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    features, weight, offset, mask, bias = tensors
    numbers = (*geometry[0], *geometry[1], *geometry[2], *groups, mask is not None)
    filled = _filled(features, weight, mask, bias)
    given = in_float32(grad_output, features, weight, offset, *filled)
    grads = torchvision_kernels()._deform_conv2d_backward(*given, *numbers)
    on_border = _on_border(offset, weight.shape[2:], geometry)
    return grads[0], grads[1], grads[2].masked_fill_(on_border, 0), grads[3], grads[4]


def _filled(
    features: Tensor, weight: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The tensors torchvision wants in place of an absent mask and bias."""
    if mask is None:
        mask = features.new_zeros(features.shape[0], 1)
    if bias is None:
        bias = features.new_zeros(weight.shape[0])
    return mask, bias


def _on_border(
    offset: Tensor, kernel: torch.Size, geometry: tuple[_Pair, _Pair, _Pair]
) -> Tensor:
    """Offsets whose sample lies exactly one pixel before the image.

    mmcv has no gradient there, torchvision that of the pixel inside. With offsets
    of zero, as every layer starts, the padding lies at exactly that place.

    Returns:
        Booleans of the shape of ``offset``.
    """
    stride, padding, dilation = geometry
    # A sum that was rounded could fall on the border.
    (offset,) = in_float32(offset, half=True)
    batch, channels, height, width = offset.shape
    count = kernel[0] * kernel[1]
    position = offset.view(batch, channels // (2 * count), count, 2, height, width)
    device = offset.device

    def base(axis: int, length: int) -> Tensor:
        steps = torch.arange(length, device=device) * stride[axis] - padding[axis]
        taps = torch.arange(kernel[axis], device=device) * dilation[axis]
        return steps + taps[:, None]

    rows = base(0, height)[:, None, :, None]
    columns = base(1, width)[None, :, None, :]
    shape = (*kernel, height, width)
    grid = torch.stack((rows.expand(shape), columns.expand(shape)), dim=2)
    return (position + grid.flatten(0, 1) == -1).view(offset.shape)


OPERATORS = (
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)
