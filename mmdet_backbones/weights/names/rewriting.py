"""Rewrite a whole file, where a table of names does not say enough."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map_only

Rewrite = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
# Larger kernels are of no published net, and resampling them takes a matrix of the
# fourth power of their side.
_LARGEST_KERNEL = 64


class _Traced(Tensor):
    """A tensor without data that knows from which ones of a file it was made."""

    origins: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, cls)]
        origins = frozenset().union(*(t.origins for t in given))
        return tree_map_only(cls, lambda t: _mark(t, origins), result)


def _mark(tensor: _Traced, origins: frozenset[str]) -> _Traced:
    tensor.origins = tensor.origins | origins
    return tensor


@dataclass(frozen=True)
class Rewritten:
    """A file in another layout.

    Attributes:
        shapes: Tensors on the meta device, by their new names.
        origins: Names in the file of what each new one was made of.
        rewrite: What was done.
        given: The tensors of the file.
        altered: Names of those that are written to on the way.
    """

    shapes: dict[str, Tensor]
    origins: dict[str, tuple[str, ...]]
    rewrite: Rewrite
    given: Mapping[str, Tensor]
    altered: frozenset[str]

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors by their new names; what only changed its name is shared."""
        given = {
            name: tensor.clone() if name in self.altered else tensor
            for name, tensor in self.given.items()
        }
        return _quietly(self.rewrite, given)

    @cached_property
    def became(self) -> dict[str, list[str]]:
        """New names of what each tensor of the file is a part of."""
        became: dict[str, list[str]] = {}
        for new, names in self.origins.items():
            for name in names:
                became.setdefault(name, []).append(new)
        return became

    @property
    def dropped(self) -> list[str]:
        """Names in the file of what has no part in the new layout.

        A tensor of a block that holds other numbers than zero is not among them: its
        loss would change the features, whoever drops it.
        """
        return [
            name
            for name, tensor in self.given.items()
            if name not in self.became and not (_in_block(name) and _has_values(tensor))
        ]


def rewritten(rewrite: Rewrite, given: Mapping[str, Tensor]) -> Rewritten | None:
    """Try a function that rewrites files, on shapes alone.

    Args:
        rewrite: Takes a file of its own layout; it may fail on any other.
        given: Tensors of a file by name.

    Returns:
        The file in its new layout, None if the function fails or changes nothing.
    """
    if any(
        t.dim() == 4 and max(t.shape[2:]) > _LARGEST_KERNEL
        for name, t in given.items()
        if 'patch_embed' in name
    ):
        return None
    traced: dict[str, Tensor] = {}
    for name, tensor in given.items():
        shape = torch.empty_like(tensor, device='meta').as_subclass(_Traced)
        traced[name] = _mark(shape, frozenset((name,)))
    try:
        result = _quietly(rewrite, dict(traced))
    except Exception:  # whatever a function raises for a file of another layout
        return None
    shapes = {k: t for k, t in result.items() if isinstance(t, Tensor)}
    if shapes.keys() == traced.keys() and all(
        shapes[name] is tensor and not tensor._version
        for name, tensor in traced.items()
    ):
        return None
    return Rewritten(
        {name: tensor.as_subclass(Tensor) for name, tensor in shapes.items()},
        {name: tuple(getattr(t, 'origins', ())) for name, t in shapes.items()},
        rewrite,
        given,
        frozenset(name for name, tensor in traced.items() if tensor._version),
    )


def _quietly(rewrite: Rewrite, given: dict[str, Tensor]) -> Mapping[str, Tensor]:
    # timm's functions print what they find, and log what the report says.
    logger = logging.getLogger('timm')
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), torch.no_grad():
            return rewrite(given)
    finally:
        logger.setLevel(level)


def _in_block(name: str) -> bool:
    return re.search(r'(?:^|\.)\d+\.', name) is not None and 'bias_mask' not in name


def _has_values(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.is_meta and bool(tensor.any())
