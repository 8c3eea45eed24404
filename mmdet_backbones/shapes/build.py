"""Backbones on the meta device: shapes without numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import UserError, explain
from ..registry import MODELS
from .repeated import repeated_shapes

# What makes weights. Other functions that make a tensor are asked for numbers.
_FACTORIES = frozenset(
    {
        torch.empty,
        torch.empty_strided,
        torch.full,
        torch.normal,
        torch.ones,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.zeros,
    }
)
# What initialisers do in place; without values there is nothing to do.
_FILLING = {
    getattr(Tensor, name)
    for name in ('uniform_', 'normal_', 'erfinv_', 'mul_', 'add_', 'clamp_', 'fill_')
}
# The same by torch's functions that modes see; inside them modes see nothing.
_INITIALISERS = frozenset(
    (nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_)
)
_Net = TypeVar('_Net', bound=nn.Module)


class _Weightless(TorchFunctionMode):
    """Puts weights on the meta device, unfilled, and leaves numbers where they are."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS and kwargs['tensor'].is_meta:
            return kwargs['tensor']
        if func in _FILLING and args[0].is_meta and not _learns(args, kwargs):
            return args[0]
        if func in _FACTORIES and kwargs.get('device') is None:
            kwargs = {**kwargs, 'device': 'meta'}
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            moved, changed = _all_on_meta((args, kwargs))
            if not changed:
                raise
            return func(*moved[0], **moved[1])


def _learns(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation is part of a graph, as those of a forward pass are."""
    tensors = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _all_on_meta(arguments: Any) -> tuple[Any, bool]:
    """Follow a tensor that is on the meta device; ranges are not."""
    leaves, spec = tree_flatten(arguments)
    devices = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
    if len(devices) < 2:
        return arguments, False
    moved = [leaf.to('meta') if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return tree_unflatten(moved, spec), True


@contextmanager
def weightless() -> Iterator[None]:
    """Build nets without weights: what they learn is on the meta device.

    ``torch.device('meta')`` puts all tensors there. But constructors read numbers off
    some: stochastic depth off ``torch.linspace``, RegNet its widths. And on that device
    truncated normals, which nobody would see, take most of the time of building a
    transformer.
    """
    with torch.device('cpu'), _Weightless():
        yield


def on_meta(make: Callable[[], _Net]) -> _Net:
    """Make a net, all of it on the meta device."""
    with weightless():
        return make().to('meta')


def on_default_device(make: Callable[[], _Net]) -> _Net:
    """Make a net; as :func:`on_meta` does if that is the default device."""
    meta = torch.get_default_device().type == 'meta'
    return on_meta(make) if meta else make()


def build_weightless(config: Mapping[str, Any], as_built: bool = False) -> nn.Module:
    """Build a backbone on the meta device, in eval mode.

    Args:
        config: For ``MODELS.build``.
        as_built: Leave the mode as the class sets it; some freeze in ``eval()``.

    Raises:
        UserError: A ``ValueError`` with the message of a backbone that refuses.
    """
    try:
        net: nn.Module = on_meta(lambda: MODELS.build(dict(config)))
    except (TypeError, ValueError, AssertionError) as error:
        reason = explain(error)
        if reason in ('', type(error).__name__):
            reason = f'{config["type"]} refuses its arguments without saying why'
        raise UserError(reason) from error
    if not as_built:
        # mmdet's own nets return None from eval().
        net.eval()
    return net


def fixed_size(net: nn.Module) -> tuple[int, int] | None:
    """Return the one (height, width) that a backbone takes, None if it takes any."""
    return getattr(getattr(net, '_sizes', None), 'fixed', None)


def forward_weightless(
    net: nn.Module, size: tuple[int, int], in_channels: int = 3
) -> tuple[Tensor, ...]:
    """Run a backbone that stands on the meta device.

    Args:
        net: Maps (N, C, H, W) to one tensor or a sequence of them.
        size: Height and width of the image.
        in_channels: Channels of the image.

    Returns:
        Its outputs, without numbers.
    """
    with torch.no_grad(), torch.device('meta'):
        outputs = net(torch.zeros(1, in_channels, *size))
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def idle_parameters(
    net: nn.Module, size: tuple[int, int], in_channels: int = 3
) -> list[str]:
    """Name the trainable parameters that no output depends on.

    DistributedDataParallel stops at them, unless it is told to look for them.

    Args:
        net: On the meta device; it is left in eval mode.
        size: Height and width of an image that it takes.
        in_channels: Channels of the image.

    Returns:
        Their names; none if the net cannot be trained on the meta device.
    """
    net.train()
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    try:
        with repeated_shapes(), torch.device('meta'), torch.enable_grad():
            outputs = net(torch.zeros(2, in_channels, *size))
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
            total = sum(output.sum() for output in outputs if output.requires_grad)
            if not isinstance(total, Tensor):
                return list(trained)
            grads = torch.autograd.grad(
                total, list(trained.values()), allow_unused=True
            )
    except Exception:  # of nets that nobody here wrote
        return []
    finally:
        net.eval()
    return [n for n, grad in zip(trained, grads, strict=True) if grad is None]
