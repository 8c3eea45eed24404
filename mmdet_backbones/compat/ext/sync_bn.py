"""Batch normalisation with statistics over processes (MMSyncBN).

Plain torch. Semantics of mmcv 2.1.0 (``csrc/common/cuda/sync_bn_cuda_kernel.cuh``),
which has no CPU kernel. mmcv.ops exchanges the statistics between these calls.
All tensors but inputs, outputs and their gradients are float32.
"""

from __future__ import annotations

from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Mean of each channel.

    Args:
        input: (N, C, P) for P pixels.
        mean: (C,), filled in place.
    """
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Biased variance of each channel around a given mean.

    Args:
        input: (N, C, P).
        mean: (C,) over all processes.
        var: (C,), filled in place.
    """
    var.copy_((input.float() - mean[:, None]).square_().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Normalise and update the running statistics.

    Args:
        input: (N, C, P).
        mean: (C,) over all processes.
        var: (C,) over all processes.
        weight: (C,).
        bias: (C,).
        running_mean: (C,), updated in place.
        running_var: (C,), updated in place with the unbiased variance.
        norm: (N, C, P), filled in place with the normalised input.
        std: (C,), filled in place.
        output: (N, C, P), filled in place.
        eps: Added to the variance.
        momentum: Share of the new statistics.
        group_size: Number of processes.
    """
    std.copy_((var + eps).sqrt_())
    norm.copy_((input.float() - mean[:, None]).div_(std[:, None]))
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * count / (count - 1) if count > 1 else var
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(unbiased, momentum)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Gradients for weight and bias of this process.

    Args:
        grad_output: (N, C, P).
        norm: (N, C, P), what the forward pass left there.
        grad_weight: (C,), filled in place.
        grad_bias: (C,), filled in place.
    """
    grad = grad_output.float()
    grad_weight.copy_((grad * norm).sum((0, 2)))
    grad_bias.copy_(grad.sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Gradient for the input.

    Args:
        grad_output: (N, C, P).
        weight: (C,).
        grad_weight: (C,) mean over all processes.
        grad_bias: (C,) mean over all processes.
        norm: (N, C, P), what the forward pass left there.
        std: (C,), what the forward pass left there.
        grad_input: (N, C, P), filled in place.
    """
    count = norm.shape[0] * norm.shape[2]
    shared = (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    grad_input.copy_((grad_output.float() - shared) * (weight / std)[:, None])


OPERATORS = (
    sync_bn_forward_mean,
    sync_bn_forward_var,
    sync_bn_forward_output,
    sync_bn_backward_param,
    sync_bn_backward_data,
)
