"""Multi-scale deformable attention.

Plain torch, and Triton where a GPU runs it. Semantics of mmcv 2.1.0
(``csrc/common/cuda/ms_deform_attn_cuda_kernel``), which has no CPU kernel: mmcv.ops
comes here for CUDA tensors only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

# What Triton compiles for.
_OLDEST = (7, 0)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of values sampled at a few places of each level.

    Args:
        value: (B, K, M, D) for K pixels of all levels, M heads of D channels.
        value_spatial_shapes: (L, 2) height and width of the levels.
        value_level_start_index: (L,) first pixel of each level.
        sampling_locations: (B, Q, M, L, P, 2) as x, y from 0 to 1.
        attention_weights: (B, Q, M, L, P).
        im2col_step: Images that mmcv's kernel handles at once; changes no value.

    Returns:
        (B, Q, M * D).
    """
    kernels = _kernels_for(value)
    if kernels is not None:
        return kernels.attend(
            value,
            value_spatial_shapes,
            value_level_start_index,
            sampling_locations,
            attention_weights,
        )
    levels = _levels(value_spatial_shapes, value_level_start_index)
    return attend_levels(value, levels, sampling_locations, attention_weights)


def attend_levels(
    value: Tensor,
    levels: Iterable[tuple[int, int, tuple[int, int]]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """As :func:`ms_deform_attn_forward`, for levels whose shapes are no tensors.

    Args:
        levels: Index, first pixel and (height, width) of each level.
        value, sampling_locations, attention_weights: As there.

    Returns:
        (B, Q, M * D).
    """
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    total = value.new_zeros(batch * heads, channels, queries)
    for level, start, shape in levels:
        total += _attend(
            _image(value, start, shape),
            _points_first(sampling_locations[:, :, :, level]),
            _points_first(attention_weights[:, :, :, level]),
        )
    total = total.view(batch, heads * channels, queries)
    return total.transpose(1, 2).contiguous()


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of `ms_deform_attn_forward`.

    Args:
        grad_output: (B, Q, M * D).
        grad_value, grad_sampling_loc, grad_attn_weight: Shaped like the tensors
            they belong to, filled in place.
        value, value_spatial_shapes, value_level_start_index, sampling_locations,
            attention_weights, im2col_step: As in the forward pass.
    """
    kernels = _kernels_for(value)
    if kernels is not None:
        given = (value, value_spatial_shapes, value_level_start_index)
        found = kernels.attend_back(
            *given, sampling_locations, attention_weights, grad_output
        )
        for grad, values in zip(
            (grad_value, grad_sampling_loc, grad_attn_weight), found, strict=True
        ):
            grad.copy_(values)
        return
    batch, _, heads, channels = value.shape
    queries = grad_output.shape[1]
    grad_total = grad_output.transpose(1, 2).reshape(batch * heads, channels, queries)
    for level, start, shape in _levels(value_spatial_shapes, value_level_start_index):
        leaves = (
            _image(value, start, shape).detach().requires_grad_(),
            _points_first(sampling_locations[:, :, :, level]).detach().requires_grad_(),
            _points_first(attention_weights[:, :, :, level]).detach().requires_grad_(),
        )
        with torch.enable_grad():
            total = _attend(*leaves)
        image, location, weight = torch.autograd.grad(total, leaves, grad_total)
        # mmcv has no gradient for samples outside the image or on its edge.
        height, width = shape
        position = leaves[1].detach() * location.new_tensor((width, height)) - 0.5
        bound = location.new_tensor((width, height))
        outside = ((position <= -1) | (position >= bound)).any(-1, keepdim=True)
        location = location.masked_fill(outside, 0)
        pixels = image.view(batch, heads, channels, height * width).permute(0, 3, 1, 2)
        grad_value[:, start : start + height * width] = pixels
        grad_sampling_loc[:, :, :, level] = _queries_first(location, heads)
        grad_attn_weight[:, :, :, level] = _queries_first(weight, heads)


def _kernels_for(value: Tensor) -> ModuleType | None:
    """Triton's kernels, if they are for such a tensor, here and now."""
    # Of the plain ones torch says itself that their sums come in any order; and of a
    # function that is being compiled it fuses them.
    left = torch.are_deterministic_algorithms_enabled() or torch.compiler.is_compiling()
    return _kernels(value.device) if value.is_cuda and not left else None


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Triton's kernels if the device runs them, which a first call tries."""
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return None
    try:
        from . import attention_triton

        real = torch.zeros(48, device=device)
        whole = torch.ones(1, 2, dtype=torch.int64, device=device)
        given = (
            real[:16].view(1, 1, 1, 16),
            whole,
            whole[0, :1] - 1,
            real[:2].view(1, 1, 1, 1, 1, 2),
            real[:1].view(1, 1, 1, 1, 1),
        )
        attention_triton.attend(*given)
        attention_triton.attend_back(*given, real[:16].view(1, 1, 16))
    except Exception as error:  # whatever a compiler that is not there raises
        print_log(
            'Deformable attention runs in plain torch, slower and with more memory: '
            f'Triton does not run here ({type(error).__name__}: {error})',
            'current',
            logging.WARNING,
        )
        return None
    return attention_triton


def _levels(
    shapes: Tensor, starts: Tensor
) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Index, first pixel and (height, width) of each level."""
    # One copy for all levels: each waits for the device.
    table = torch.cat((shapes, starts[:, None].to(shapes)), dim=1).tolist()
    for level, (height, width, start) in enumerate(table):
        yield level, start, (height, width)


def _image(value: Tensor, start: int, shape: tuple[int, int]) -> Tensor:
    """Pixels of one level as (B * M, D, H, W)."""
    pixels = value[:, start : start + shape[0] * shape[1]]
    return pixels.permute(0, 2, 3, 1).reshape(-1, value.shape[3], *shape)


def _points_first(values: Tensor) -> Tensor:
    """(B, Q, M, P, ...) as (B * M, P, Q, ...): sums over few points are slow last."""
    return values.movedim((2, 3), (1, 2)).contiguous().flatten(0, 1)


def _queries_first(values: Tensor, heads: int) -> Tensor:
    """(B * M, P, Q, ...) as (B, Q, M, P, ...)."""
    return values.unflatten(0, (-1, heads)).movedim((1, 2), (2, 3))


def _attend(image: Tensor, location: Tensor, weight: Tensor) -> Tensor:
    """Sample one level: (B * M, D, H, W), (B * M, P, Q, 2), (B * M, P, Q).

    Returns:
        (B * M, D, Q).
    """
    samples = F.grid_sample(image, 2 * location - 1, align_corners=False)
    return (samples * weight[:, None]).sum(2)


OPERATORS = (ms_deform_attn_forward, ms_deform_attn_backward)
