"""Sigmoid and softmax focal loss.

Plain torch. Semantics of mmcv 2.1.0 (``csrc/common/cuda/*_focal_loss_cuda_kernel``),
which has no CPU kernel: logarithms are cut at the smallest normal float32, so a
wrong label with certainty costs 87.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import round_to_float32

_SMALLEST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Loss of each class on its own (mmcv.ops.sigmoid_focal_loss).

    Args:
        input: (N, C) logits.
        target: (N,) class indices; C stands for background.
        weight: (C,) factor by the class of the target, or empty. The background
            has the factor 1; the kernel of mmcv reads past the end there.
        output: (N, C), filled in place.
        gamma: Exponent that plays down easy examples.
        alpha: Share of positives, 1 - alpha that of negatives.
    """
    gamma, alpha = round_to_float32(gamma), round_to_float32(alpha)
    p = _real(input).sigmoid()
    loss = p.pow(gamma).mul_(_log(1 - p)).mul_(alpha - 1)
    p = _at_target(p, target)
    positive = (1 - p).pow(gamma).mul_(_log(p)).mul_(-alpha)
    _set_target(loss, target, positive)
    output.copy_(_weighted(loss, weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient of `sigmoid_focal_loss_forward` for its logits.

    Args:
        grad_input: (N, C), filled in place.
        input, target, weight, gamma, alpha: As in the forward pass.
    """
    gamma, alpha = round_to_float32(gamma), round_to_float32(alpha)
    p = _real(input).sigmoid()
    grad = _log(1 - p).mul_(1 - p).mul_(gamma).sub_(p)
    grad.mul_(p.pow(gamma)).mul_(alpha - 1)
    p = _at_target(p, target)
    positive = 1 - p - gamma * p * _log(p)
    positive.mul_((1 - p).pow(gamma)).mul_(-alpha)
    _set_target(grad, target, positive)
    grad_input.copy_(_weighted(grad, weight, target))


def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Loss of the target class (mmcv.ops.softmax_focal_loss).

    Args:
        input: (N, C) probabilities, after the softmax.
        target: (N,) class indices; others have no loss.
        weight: (C,) factor by the class of the target, or empty.
        output: (N,), filled in place.
        gamma: Exponent that plays down easy examples.
        alpha: Factor on the loss.
    """
    gamma, alpha = round_to_float32(gamma), round_to_float32(alpha)
    p = _at_target(_real(input), target).squeeze(1)
    loss = (1 - p).pow(gamma).mul_(_log(p)).mul_(-alpha)
    loss = torch.where(_has_class(target, input.shape[1]), loss, 0)
    output.copy_(_weighted(loss[:, None], weight, target).squeeze(1))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient of `softmax_focal_loss_forward` for the logits.

    Args:
        buff: (N,), filled in place with the factor of each row.
        grad_input: (N, C), filled in place.
        input, target, weight, gamma, alpha: As in the forward pass.
    """
    gamma, alpha = round_to_float32(gamma), round_to_float32(alpha)
    probability = _real(input)
    p = _at_target(probability, target).squeeze(1)
    easy = gamma * (1 - p).pow(gamma - 1) * p * _log(p)
    factor = alpha * (easy - (1 - p).pow(gamma))
    factor = torch.where(_has_class(target, input.shape[1]), factor, 0)
    buff.copy_(_weighted(factor[:, None], weight, target).squeeze(1))
    factor = buff.to(probability)[:, None]
    grad = -factor * probability
    _set_target(grad, target, factor + _at_target(grad, target))
    grad_input.copy_(grad)


def _real(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.half, torch.bfloat16) else values


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=_SMALLEST).log_()


def _has_class(target: Tensor, classes: int) -> Tensor:
    return (target >= 0) & (target < classes)


def _column(values: Tensor, target: Tensor) -> Tensor:
    """Index (N, 1) of the target, of any class where there is none."""
    return target.clamp(0, values.shape[1] - 1)[:, None]


def _at_target(values: Tensor, target: Tensor) -> Tensor:
    """Pick (N, 1) of (N, C)."""
    return values.gather(1, _column(values, target))


def _set_target(values: Tensor, target: Tensor, new: Tensor) -> None:
    """Write (N, 1) into (N, C), except in rows without a class."""
    # A mask in place of an index list: the number of rows stays on the device.
    has_class = _has_class(target, values.shape[1])
    new = torch.where(has_class[:, None], new, _at_target(values, target))
    values.scatter_(1, _column(values, target), new)


def _weighted(values: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    if weight.numel() == 0:
        return values
    factor = weight[target.clamp(0, weight.shape[0] - 1)]
    factor = torch.where(_has_class(target, weight.shape[0]), factor, 1)
    return values * factor[:, None]


OPERATORS = (
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    softmax_focal_loss_forward,
    softmax_focal_loss_backward,
)
