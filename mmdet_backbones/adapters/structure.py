"""What the adapters find out about a net: its levels and stages, and which images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from ..levels import PROBE_SIZE, Level, measure
from ..shapes.structure import Structure

Size = tuple[int, int]
# Gives the outputs of a net for an image of some height and width.
Run = Callable[[Size], Sequence[Tensor]]


class RefusedError(ValueError):
    """A net that cannot be a backbone."""


def one_line(error: BaseException) -> str:
    """Name an error in one line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


@dataclass(frozen=True)
class SizeRule:
    """Which images a net takes.

    Attributes:
        multiple: Height and width are padded to multiples of it.
        fixed: The one (height, width) the net takes, or None.
        arguments: Under which its constructor makes a net that takes them.
    """

    multiple: int = 1
    fixed: tuple[int, int] | None = None
    arguments: tuple[tuple[str, Any], ...] = ()

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the net is given in place of these."""
        height, width = (side + -side % self.multiple for side in size)
        return self.fixed or (height, width)

    def check(
        self, images: Tensor, owner: str, cure: Callable[[Size], str] | None = None
    ) -> None:
        """Raise a ``ValueError`` if the net takes images of another size only.

        Args:
            images: Of shape (N, C, H, W).
            owner: Name of the backbone, for the message.
            cure: Says what else can be done for images of a height and width.
        """
        height, width = images.shape[-2:]
        if self.fixed is not None and (height, width) != self.fixed:
            raise ValueError(
                f'{owner} takes images of {self.fixed} only, got {(height, width)}: '
                f'resize and pad every image to {self.fixed}'
                + (cure((height, width)) if cure is not None else '')
            )


@dataclass(frozen=True)
class WholeStructure(Structure):
    """Structure of a net with all of its levels, and the images it takes.

    Attributes:
        sizes: Which images it takes.
        count: Number of its outputs, those of no whole stride included.
    """

    sizes: SizeRule
    count: int


def fit_padding(
    run: Run,
    multiples: Iterable[int],
    strides: Sequence[float] | None = None,
    patience: int | None = None,
) -> tuple[SizeRule, tuple[Level, ...]] | None:
    """Find the first padding under which most maps have the size ceil(image / stride).

    Args:
        run: Runs the net, best on the meta device.
        multiples: To pad images to, in the order in which they are tried.
        strides: What the net declares, if it does. Outputs of others do not count.
        patience: Stop after so many multiples that gain nothing.

    Returns:
        The padding and the levels that fit, numbered as the outputs are; None if the
        net fails under every padding.
    """
    run = cache(run)
    best: tuple[SizeRule, tuple[Level, ...]] | None = None
    fruitless = 0
    for multiple in multiples:
        rule = SizeRule(multiple)
        # Odd if nothing is padded, and of several multiples along both sides.
        odd = (PROBE_SIZE[0] + multiple, PROBE_SIZE[1] + 2 * multiple + 1)
        sizes = rule.padded(PROBE_SIZE), rule.padded(odd)
        try:
            outputs, others = (run(size) for size in sizes)
        except RefusedError:
            raise
        except Exception:  # whatever a net raises for a size that it does not take
            continue
        levels = tuple(
            level
            for index, (output, other) in enumerate(zip(outputs, others, strict=True))
            if (level := measure(index, output, sizes[0])) is not None
            and level.fits(other, sizes[1])
            and (strides is None or level.stride == strides[index])
        )
        gained = len(levels) > (len(best[1]) if best is not None else 0)
        if best is None or gained:
            best = rule, levels
        fruitless = 0 if gained else fruitless + 1
        if len(levels) == len(outputs) or fruitless == patience:
            break
    return best
