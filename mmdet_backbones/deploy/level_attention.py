"""Multi-scale deformable attention in a graph, where shapes are no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ..compat.ext.attention import attend_levels

Shape = tuple[int, int]


def replace_attention(model: nn.Module) -> None:
    """Put :class:`LevelAttention` where mmcv's class is, in place."""
    from mmcv.ops import MultiScaleDeformableAttention

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MultiScaleDeformableAttention):
                setattr(parent, name, LevelAttention(child))


class LevelAttention(nn.Module):
    """``MultiScaleDeformableAttention`` for levels whose shapes are no tensors.

    Args:
        attention: Of mmcv; its layers are shared.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.grid = (attention.num_heads, attention.num_levels, attention.num_points)
        self.batch_first = attention.batch_first
        self.value_proj = attention.value_proj
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.output_proj = attention.output_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        query_pos: Tensor,
        key_padding_mask: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[Shape],
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        level_start_index: None = None,
        valid_ratios: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (N, Q, C).
            value: (N, K, C) of all places of all levels, the query if left out.
            query_pos: (N, Q, C), added to the query.
            key_padding_mask: (N, K), True for padding.
            reference_points: (N, Q, L, 2 or 4) in parts of each level.
            spatial_shapes: Height and width of each level.
            key, key_pos, attn_mask, level_start_index, valid_ratios: What mmdet's
                layers hand on; mmcv's class does not use it either.

        Returns:
            (N, Q, C), with the query added.
        """
        assert self.batch_first, "mmdet's layers put the batch first"
        heads, levels, points = self.grid
        identity, value = query, query if value is None else value
        query = query + query_pos
        value = self.value_proj(value).masked_fill(key_padding_mask[..., None], 0.0)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.grid, 2))
        weights = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        weights = weights.softmax(-1).unflatten(-1, (levels, points))
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 2:
            offsets = _normalise(offsets, spatial_shapes)
        else:
            offsets = offsets / points * reference[..., 2:] * 0.5
        attended = attend_levels(
            value.unflatten(-1, (heads, -1)),
            levels_of(spatial_shapes),
            reference[..., :2] + offsets,
            weights,
        )
        return self.output_proj(attended) + identity


def levels_of(shapes: Sequence[Shape]) -> Iterator[tuple[int, int, Shape]]:
    """Index, first place and height and width of each level."""
    starts = accumulate((height * width for height, width in shapes), initial=0)
    for level, (start, shape) in enumerate(zip(starts, shapes, strict=False)):
        yield level, start, shape


def _normalise(offsets: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """Offsets (B, Q, M, L, P, 2) in pixels of their level as parts of it."""
    levels = [
        torch.stack((level[..., 0] / width, level[..., 1] / height), -1)
        for level, (height, width) in zip(offsets.unbind(3), shapes, strict=True)
    ]
    return torch.stack(levels, 3)
