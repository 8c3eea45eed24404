"""Activation checkpointing that counts a batch once in the running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(
    owner: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Run ``function`` without keeping its activations; backward runs it again.

    Args:
        owner: Holds every layer that ``function`` uses.
        function: Maps a tensor to a tensor.
        x: Its input.

    Returns:
        ``function(x)``. The gradients equal those of a plain call, and the second
        run leaves the running statistics of batch normalisation alone.
    """
    if torch.compiler.is_compiling():
        # The compiler writes statistics once, after its graph, and cannot trace a
        # context of ours.
        return checkpoint(function, x, use_reentrant=False)
    contexts = partial(_contexts, owner)
    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)


def _contexts(
    owner: nn.Module,
) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _fixed_statistics(owner)


@contextmanager
def _fixed_statistics(owner: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are while layers stay in training mode.

    With ``track_running_stats=False`` or without buffers, a layer would save other
    tensors for backward than in its first run, which checkpointing forbids. A
    momentum of zero saves the same ones and changes no value.
    """
    layers = [
        (layer, layer.momentum, layer.num_batches_tracked)
        for layer in owner.modules()
        if isinstance(layer, _BatchNorm) and layer.training
    ]
    for layer, _, counter in layers:
        layer.momentum = 0.0
        if counter is not None:
            # On the CPU whatever the device of the layer: no kernel to launch.
            layer.num_batches_tracked = torch.zeros_like(counter, device='cpu')
    try:
        yield
    finally:
        for layer, momentum, counter in layers:
            layer.momentum = momentum
            layer.num_batches_tracked = counter
