"""What loading needs of the net that takes the weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from ...levels import FrozenStages
from ..names.dialect import Dialect


class Target(Protocol):
    """A net that pretrained weights are loaded into: every ``Backbone`` is one.

    Attributes:
        dialects: How other sources name its parameters.
        frozen_stages: Stages without training, -1 for none, ``'all'`` for the whole
            net.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        lora: Its adapters, which alone train; None for none.
        variants: Constructor arguments of the family's published nets, by name.
        additions: Patterns (``fnmatch``) of modules that its arguments add to the net
            that files are of, such as the normalisation of an output. A file has all
            of them or none.
    """

    dialects: tuple[Dialect, ...]
    frozen_stages: FrozenStages
    norm_eval: bool
    lora: object | None
    variants: Mapping[str, dict[str, Any]]
    additions: tuple[str, ...]

    @classmethod
    def whole(cls, **arguments: Any) -> Mapping[str, Tensor]:
        """Tensors without values of a net that nothing was dropped of."""

    def uncut(self) -> Mapping[str, Tensor]:
        """The same of this net; none if nothing was dropped of it."""

    def as_in(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Be, for a while, the net that a file of these names is of."""

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Modules and bare parameters of one stage; stage 0 is the stem."""

    def built_stages(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        """The same of every stage that is built."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name."""

    def named_parameters(
        self, *, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters with their names."""

    def named_buffers(
        self, *, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their names."""

    def named_modules(
        self, *, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Modules with their names."""

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name."""
