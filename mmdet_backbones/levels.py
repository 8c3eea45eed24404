"""The levels of a backbone: what they are, how they are chosen, and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from .errors import ArgumentError, ArgumentTypeError

# Number of the image itself among the levels of a backbone that hands it on.
_IMAGE = -2


@dataclass(frozen=True)
class Level:
    """One feature map that a backbone can return.

    Attributes:
        index: Number of the level in its family, as ``out_indices`` counts.
        channels: Channels C of the (N, C, H, W) map.
        stride: Input pixels per pixel of the map, along each side.
    """

    index: int
    channels: int
    stride: int

    @classmethod
    def image(cls, channels: int) -> Level:
        """The image itself, which a backbone hands on to its neck."""
        return cls(_IMAGE, channels, 1)

    @property
    def is_image(self) -> bool:
        """Whether it is no map of the backbone, but what it was given."""
        return self.index == _IMAGE

    def fits(self, output: Tensor, size: Sequence[int]) -> bool:
        """Tell whether an output for an image of that size has this level's shape."""
        return output.shape[1:] == (self.channels, *map_size(size, self.stride))


class Preprocess(NamedTuple):
    """How the images were prepared that a family's usual weights were trained on.

    Attributes:
        mean: Mean per channel on the 0..255 scale, in ``channel_order``.
        std: Standard deviation per channel on the 0..255 scale.
        channel_order: ``'rgb'`` or ``'bgr'``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'rgb'


IMAGENET = Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def select_levels(
    available: Sequence[Level],
    out_indices: Sequence[int] | None = None,
    out_strides: Sequence[int] | None = None,
    *,
    owner: str,
) -> tuple[Level, ...]:
    """Choose levels by index or by stride.

    Args:
        available: All levels of the family, shallow to deep.
        out_indices: Ascending level numbers of the family. Negative ones count from
            the last level, which is -1.
        out_strides: Ascending strides, the same for every family.
        owner: Name of the backbone, for the message.

    Returns:
        The chosen levels, shallow to deep; all of them if neither is given. Of the
        levels that share a stride, as in a plain ViT, the deepest one has it.

    Raises:
        TypeError: If a choice is not a sequence of integers.
        ValueError: If both are given, or a level is not there, is named twice or
            out of order.
    """
    if out_indices is not None and out_strides is not None:
        raise ArgumentError(
            f'{owner} takes out_indices or out_strides, not both: got '
            f'out_indices={tuple(out_indices)} and out_strides={tuple(out_strides)}: '
            'write out_indices=None or leave one of them out',
            dict(out_indices=None),
        )
    if out_indices is None and out_strides is None:
        return tuple(available)
    name = 'out_indices' if out_indices is not None else 'out_strides'
    field = 'index' if out_indices is not None else 'stride'
    wanted = out_indices if out_indices is not None else out_strides
    if not isinstance(wanted, Sequence) or not all(type(w) is int for w in wanted):
        example = _example(available, (), field)
        raise ArgumentTypeError(
            f'{owner}: {name} must be a sequence of integers, got {wanted!r}; '
            f'write {name}={example}',
            {name: example},
        )
    given, wanted = wanted, _from_the_end(available, wanted, field)
    problems = _level_problems(available, wanted, field)
    if problems:
        example = _example(available, wanted, field)
        raise ArgumentError(
            f'{owner}: {name}={tuple(given)} cannot be served: '
            f'{"; ".join(problems)}. Its levels are '
            f'{describe_levels(available)}; for example write '
            f'{name}={example}',
            {name: example},
        )
    by_value = {getattr(level, field): level for level in available}
    return tuple(by_value[w] for w in wanted)


def _from_the_end(
    available: Sequence[Level], wanted: Sequence[int], field: str
) -> Sequence[int]:
    if field == 'stride':
        return wanted
    last = len(available)
    return [available[w].index if -last <= w < 0 else w for w in wanted]


def _level_problems(
    available: Sequence[Level], wanted: Sequence[int], field: str
) -> list[str]:
    values = [getattr(level, field) for level in available]
    problems = []
    if not wanted:
        problems.append('at least one level is needed')
    missing = [w for w in wanted if w not in values]
    if missing:
        problems.append(f'there is no level of {field} {", ".join(map(str, missing))}')
    if list(wanted) != sorted(set(wanted)):
        problems.append('levels are named once each, shallow to deep')
    return problems


def _example(
    available: Sequence[Level], wanted: Sequence[int], field: str
) -> tuple[int, ...]:
    """Those of the wanted levels in order, if all are there, or as many others."""
    values = sorted({getattr(level, field) for level in available})
    if wanted and set(wanted) <= set(values):
        return tuple(sorted(set(wanted)))
    return tuple(values)[-(len(wanted) or 3) :]


def describe_levels(levels: Iterable[Level]) -> str:
    """Name every level in one line, for messages."""
    # The stem of a family that does not count it is asked for by stride.
    names = {-1: 'stem', _IMAGE: 'image'}
    return ', '.join(
        f'{names.get(level.index, level.index)} ({level.channels} channels, '
        f'stride {level.stride})'
        for level in levels
    )


# What ``frozen_stages`` is for a net that does not train at all, and its type.
ALL: Literal['all'] = 'all'
FrozenStages = int | Literal['all']


def check_frozen_stages(
    frozen_stages: FrozenStages, last_stage: int, owner: str
) -> None:
    """Raise a ``ValueError`` unless it is in [-1, last_stage] or ``'all'``."""
    if frozen_stages == ALL:
        return
    if type(frozen_stages) is not int or not -1 <= frozen_stages <= last_stage:
        nearest: FrozenStages = -1
        if type(frozen_stages) is int and frozen_stages > 0:
            nearest = last_stage
        elif str(frozen_stages).lower() == ALL:
            nearest = ALL
        raise ArgumentError(
            f'{owner}: frozen_stages must be an integer from -1 (nothing), 0 (the '
            f"stem) to {last_stage} (all of its stages), or '{ALL}' (the whole net, "
            f'run without gradients), got {frozen_stages!r}: write '
            f'frozen_stages={nearest!r}',
            dict(frozen_stages=nearest),
        )


def map_size(size: Sequence[int], stride: int) -> tuple[int, int]:
    """Height and width of a map for an image of that height and width."""
    height, width = size
    return -(-height // stride), -(-width // stride)


# Not square, so that swapped height and width cannot hide.
PROBE_SIZE = (96, 160)


def measure(index: int, output: Tensor, size: tuple[int, int]) -> Level | None:
    """Read channels and stride off one output.

    Args:
        index: Level number.
        output: Supposedly of shape (N, C, H, W).
        size: Height and width of the image.

    Returns:
        The level with the stride s for which the map has the size
        (ceil(height / s), ceil(width / s)), a power of two if one fits, or else the
        smallest; None if there is none.
    """
    if output.dim() != 4:
        return None
    fitting = [
        stride
        for stride in range(1, max(size) + 1)
        if output.shape[2:] == map_size(size, stride)
    ]
    stride = next((s for s in fitting if s & (s - 1) == 0), min(fitting, default=None))
    return Level(index, output.shape[1], stride) if stride is not None else None
