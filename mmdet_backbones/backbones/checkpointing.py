"""Activation checkpointing that counts a batch once in the running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..compat.batch_norm import is_batch_norm


class Remembered:
    """What layers read besides their arguments, such as the size of the image.

    A block that runs again in the backward pass reads what it read at first, although
    the net has seen other images meanwhile. Layers hold it as an attribute.

    Attributes:
        value: Of the last forward pass.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    @contextmanager
    def put_back(self, value: Any) -> Iterator[None]:
        """Return to an earlier value for a while."""
        now = self.value
        self.value = value
        try:
            yield
        finally:
            self.value = now


def checkpointed(
    owner: nn.Module, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Run ``function`` without keeping its activations; backward runs it again.

    Args:
        owner: Holds every layer that ``function`` uses.
        function: Maps tensors to tensors.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Returns:
        ``function(*args, **kwargs)``. The gradients equal those of a plain call, and
        the second run leaves the running statistics of batch normalisation alone.
    """
    if torch.compiler.is_compiling():
        # The compiler writes statistics once, after its graph, and cannot trace a
        # context of ours.
        return checkpoint(function, *args, use_reentrant=False, **kwargs)
    contexts = partial(_contexts, owner)
    return checkpoint(
        function, *args, use_reentrant=False, context_fn=contexts, **kwargs
    )


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Make modules of another library recompute their activations in backward.

    Args:
        blocks: Called as modules by the net they belong to. None of them inside
            another one.
    """
    for block in blocks:
        # On the instance, so that the class keeps its own forward; a partial of a
        # function of this module can be copied and pickled with the block.
        block.forward = partial(_forward_of_block, block)


def _forward_of_block(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if torch.is_grad_enabled() and block.training:
        # Both runs need the list as it is now: DenseNet appends to it after the call,
        # HRNet's block writes into it.
        return checkpointed(
            block, partial(_on_copies, forward), *map(_copied, args), **kwargs
        )
    return forward(*args, **kwargs)


def _on_copies(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*map(_copied, args), **kwargs)


def _copied(argument: Any) -> Any:
    return list(argument) if isinstance(argument, list) else argument


def _contexts(
    owner: nn.Module,
) -> tuple[AbstractContextManager, AbstractContextManager]:
    remembered = {
        id(value): value.put_back(value.value)
        for layer in owner.modules()
        for value in vars(layer).values()
        if isinstance(value, Remembered)
    }
    return nullcontext(), _all([_fixed_statistics(owner), *remembered.values()])


@contextmanager
def _all(contexts: Iterable[AbstractContextManager]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


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
        if is_batch_norm(layer) and layer.training
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
