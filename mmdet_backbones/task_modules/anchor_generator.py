"""Anchors by their sizes in pixels and aspect ratios, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules import AnchorGenerator
from torch import Tensor

from ..registry import TASK_UTILS


@TASK_UTILS.register_module()
class SizedAnchorGenerator(AnchorGenerator):
    """Anchors as users of detectron2 set them (its ``DefaultAnchorGenerator``).

    An anchor of size ``s`` and aspect ratio ``r``, height by width, has the area
    ``s * s``: it is ``s / sqrt(r)`` wide and ``s * sqrt(r)`` high. mmdet's class
    takes scales, multiples of the stride, and the same ratios for all levels instead.
    This one stands wherever mmdet takes an ``anchor_generator``.

    Within a cell of the map the anchors come size by size, and for each size ratio by
    ratio, the order in which detectron2's heads number their channels.

    Args:
        sizes: Sizes in pixels for each level, fine to coarse: ``[[32], [64], ...]``.
            A flat list, or a list of one list, holds for all levels.
        aspect_ratios: Height by width in the same way, ``[[0.5, 1.0, 2.0]]``.
        strides: Stride of each level, an integer or a pair of width and height.
        offset: Where in its cell an anchor has its centre, as a share of the stride:
            0 for the corner, as in detectron2 and mmdet, 0.5 for the middle.
        use_box_type: Whether anchors are wrapped as boxes, as in mmdet.

    Raises:
        ValueError: If numbers are out of range, levels do not agree, or levels have
            different numbers of anchors, which heads that share their convolutions
            between levels cannot give; all mistakes are listed.

    Example:
        >>> anchors = SizedAnchorGenerator([[32], [64]], [0.5, 2.0], [8, 16])
        >>> anchors.num_base_priors
        [2, 2]
        >>> (anchors.base_anchors[0][0, 2:] * 2).tolist()
        [45.254833221435547, 22.627416610717773]
    """

    def __init__(
        self,
        sizes: Sequence[float] | Sequence[Sequence[float]],
        aspect_ratios: Sequence[float] | Sequence[Sequence[float]],
        strides: Sequence[int] | Sequence[Sequence[int]],
        offset: float = 0.0,
        use_box_type: bool = False,
    ) -> None:
        count = len(strides)
        self.sizes = _per_level(sizes, count)
        self.aspect_ratios = _per_level(aspect_ratios, count)
        problems = [
            *_list_problems('sizes', self.sizes, count, '[[32], [64], [128]]'),
            *_list_problems(
                'aspect_ratios', self.aspect_ratios, count, '[[0.5, 1.0, 2.0]]'
            ),
            *_count_problems(self.sizes, self.aspect_ratios),
            *_stride_problems(strides),
        ]
        if not isinstance(offset, (int, float)) or not 0 <= offset < 1:
            problems.append(f'offset must be from 0 to below 1, got {offset!r}')
        if problems:
            raise ValueError(f'SizedAnchorGenerator: {"; ".join(problems)}')
        self.offset = offset
        pairs = [s if isinstance(s, Sequence) else (s, s) for s in strides]
        # What heads may read of mmdet's class; gen_base_anchors has its own figures.
        super().__init__(
            strides=strides,
            ratios=self.aspect_ratios[0],
            scales=[1.0],
            base_sizes=[level[0] for level in self.sizes],
            scale_major=False,
            centers=[(offset * width, offset * height) for width, height in pairs],
            use_box_type=use_box_type,
        )

    def gen_base_anchors(self) -> list[Tensor]:
        """Make the anchors of the first cell.

        Returns:
            (A, 4) for each level: left, top, right and bottom in pixels.
        """
        levels = zip(self.sizes, self.aspect_ratios, self.centers, strict=True)
        return [_anchors(*level) for level in levels]

    def __repr__(self) -> str:
        """Name all settings."""
        return (
            f'{type(self).__name__}(sizes={self.sizes}, '
            f'aspect_ratios={self.aspect_ratios}, strides={self.strides}, '
            f'offset={self.offset}, use_box_type={self.use_box_type})'
        )


def _anchors(
    sizes: Sequence[float], ratios: Sequence[float], center: tuple[float, float]
) -> Tensor:
    # Rounded to single precision only at the end, as detectron2's are.
    size = torch.tensor(sizes, dtype=torch.float64)[:, None]
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()[None, :]
    half_width, half_height = (size / root).flatten() / 2, (size * root).flatten() / 2
    x, y = center
    corners = x - half_width, y - half_height, x + half_width, y + half_height
    return torch.stack(corners, dim=-1).float()


def _per_level(values: Any, count: int) -> list[list[float]]:
    """One list per level, of values that may be given once for all."""
    values = values if isinstance(values, Sequence) else [values]
    nested = [list(level) if isinstance(level, Sequence) else level for level in values]
    if not any(isinstance(level, list) for level in nested):
        nested = [nested]
    return nested * count if len(nested) == 1 else nested


def _list_problems(
    name: str, levels: list[list[float]], count: int, example: str
) -> list[str]:
    if any(not isinstance(level, list) for level in levels):
        return [f'{name} mixes numbers and lists, got {levels}: write {name}={example}']
    problems = []
    if len(levels) != count:
        problems.append(
            f'{name} has {len(levels)} levels and strides has {count}: write one list '
            f'per stride, or one for all'
        )
    wrong = [v for level in levels for v in level if not _positive(v)]
    if wrong or not all(levels):
        problems.append(
            f'{name} must hold at least one number above 0 per level, got {levels}: '
            f'write {name}={example}'
        )
    return problems


def _count_problems(sizes: list[list[float]], ratios: list[list[float]]) -> list[str]:
    if len(sizes) != len(ratios) or not all(
        isinstance(level, list) for level in (*sizes, *ratios)
    ):
        return []
    counts = [len(s) * len(r) for s, r in zip(sizes, ratios, strict=True)]
    if len(set(counts)) < 2:
        return []
    return [
        'every level needs the same number of anchors, for heads share their '
        f'convolutions between levels: sizes x aspect_ratios give {counts}'
    ]


def _stride_problems(strides: Sequence[Any]) -> list[str]:
    if strides and all(
        _positive(s)
        if not isinstance(s, Sequence)
        else len(s) == 2 and all(map(_positive, s))
        for s in strides
    ):
        return []
    return [
        'strides must be a positive number or a pair of them per level, got '
        f'{strides!r}: write strides=[4, 8, 16, 32, 64]'
    ]


def _positive(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and value > 0  # type: ignore[operator]
