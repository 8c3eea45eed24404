"""Faster passes on the meta device, where an operation gives a shape and no numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class _Shape:
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class repeated_shapes(TorchDispatchMode):  # noqa: N801 - used as a context
    """Answer an operation that was asked before from memory.

    Many operators work out the shape of their result in Python, which takes most of
    the time of such a pass, and nets repeat their blocks.

    Only for tensors on the meta device. What counts operators, such as
    ``FlopCounterMode``, has to be entered after this, or it misses the repeated ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[Any, Any] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, or give new tensors of the shapes that it gave before."""
        kwargs = kwargs or {}
        try:
            key = (func, _key(tuple(args)), _key(tuple(kwargs.items())))
            known = self._results.get(key)
        except TypeError:  # an argument that cannot be a key, such as a generator
            return func(*args, **kwargs)
        if known is not None:
            return args[0] if known is _FIRST else _map(_empty, known)
        result = func(*args, **kwargs)
        if func._schema.is_mutable and key[1] != _key(tuple(args)):
            # It changes the shape of what it is given, so it has to be run.
            return result
        if _is_meta(result):
            if args and result is args[0]:
                self._results[key] = _FIRST
            elif not any(_within(a, result) for a in (*args, *kwargs.values())):
                self._results[key] = _map(_shape, result)
        return result


# In place of a result: the operator wrote into its first argument.
_FIRST = object()


def _key(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    if isinstance(argument, (tuple, list)):
        return tuple(map(_key, argument))
    # 1, 1.0 and True are equal and give different types.
    return type(argument), argument


def _map(change: Callable[[Any], Any], result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(_map(change, part) for part in result)
    return change(result) if isinstance(result, (Tensor, _Shape)) else result


def _is_meta(result: Any) -> bool:
    if isinstance(result, (tuple, list)):
        return all(map(_is_meta, result))
    return isinstance(result, Tensor) and result.is_meta


def _within(argument: Any, result: Any) -> bool:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return isinstance(argument, Tensor) and any(argument is part for part in parts)


def _shape(tensor: Tensor) -> _Shape:
    return _Shape(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _empty(shape: _Shape) -> Tensor:
    return torch.empty_strided(
        shape.size, shape.stride, dtype=shape.dtype, device='meta'
    )
