"""The decoder of RT-DETR."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.layers import MLP, DeformableDetrTransformerDecoder, inverse_sigmoid
from torch import Tensor, nn


class RTDETRDecoder(DeformableDetrTransformerDecoder):
    """Decoder of RT-DETR, `arXiv 2304.08069 <https://arxiv.org/abs/2304.08069>`_.

    DINO's, with the four numbers of a box as position of its query, and without
    normalisation of what the layers give. Boxes look forward twice, as in DINO: each
    layer's loss moves the box that the layer before it gave.

    Args:
        num_layers: Number of layers.
        layer_cfg: Of each one, as mmdet's ``DeformableDetrTransformerDecoderLayer``
            takes it.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        num_layers: int,
        layer_cfg: dict[str, Any],
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(num_layers, layer_cfg, post_norm_cfg=None, init_cfg=init_cfg)

    def _init_layers(self) -> None:
        super()._init_layers()
        width = self.embed_dims
        self.query_pos_head = MLP(4, 2 * width, width, 2)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        self_attn_mask: Tensor | None,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: nn.ModuleList,
    ) -> tuple[Tensor, Tensor]:
        """Refine queries and their boxes.

        Args:
            query: (N, Q, C).
            value: (N, K, C), all places of all levels.
            key_padding_mask: (N, K), True for padding; None without any.
            self_attn_mask: (Q, Q), True where a query does not see another.
            reference_points: (N, Q, 4) centre, width and height in parts of the image.
            spatial_shapes: (L, 2) height and width of each level.
            level_start_index: (L,) first place of each level.
            valid_ratios: (N, L, 2) share of width and height that is no padding.
            reg_branches: From a query to the change of its box, one per layer.

        Returns:
            Queries (layers, N, Q, C) after each layer, and boxes (layers + 1, N, Q, 4)
            before the first and after each.
        """
        ratios = valid_ratios.repeat(1, 1, 2)[:, None]
        queries, boxes = [], [reference_points]
        # The last branch belongs to the encoder.
        for layer, branch in zip(self.layers, reg_branches, strict=False):
            query = layer(
                query,
                query_pos=self.query_pos_head(reference_points),
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=reference_points[:, :, None] * ratios,
            )
            moved = (branch(query) + inverse_sigmoid(reference_points)).sigmoid()
            reference_points = moved.detach()
            queries.append(query)
            boxes.append(moved)
        return torch.stack(queries), torch.stack(boxes)
