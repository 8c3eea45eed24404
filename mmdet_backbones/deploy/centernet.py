"""Decoder of CenterNet: the peaks of a heatmap, with no suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .decoding import Decoder, Limits
from .suppression import Found, best_of, gather


def build(model: Any) -> Decoder | None:
    """Make the decoder of a CenterNet."""
    from mmdet.models.dense_heads import CenterNetHead

    head = getattr(model, 'bbox_head', None)
    same = isinstance(head, CenterNetHead) and all(
        getattr(type(head), name) is getattr(CenterNetHead, name)
        for name in ('predict_by_feat', '_predict_by_feat_single', '_decode_heatmap')
    )
    return CenterNetDecoder(head) if same else None


class CenterNetDecoder(Decoder):
    """The best peaks of all classes; the image lies in the middle of its padding.

    Args:
        head: The detector's own, which is run as it is.
    """

    def __init__(self, head: Any) -> None:
        count = int(head.test_cfg.topk)
        super().__init__(Limits(0.0, None, False, count), head.num_classes)
        self.head = head
        self.kernel = int(head.test_cfg.local_maximum_kernel)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        heat, sides, offsets = (maps[0].float() for maps in self.head(tuple(features)))
        height, width = heat.shape[2:]
        highest = torch.nn.functional.max_pool2d(
            heat, self.kernel, stride=1, padding=(self.kernel - 1) // 2
        )
        peaks = (heat * (highest == heat)).flatten(1)
        scores, index = peaks.topk(self.limits.max_per_image, dim=1)
        places = index % (height * width)
        half = gather(sides.flatten(2).transpose(1, 2), places) / 2
        centres = torch.stack((places % width, places // width), dim=-1).float()
        centres = centres + gather(offsets.flatten(2).transpose(1, 2), places)
        corners = torch.cat((centres - half, centres + half), dim=-1)
        x, y = corners[..., 0::2], corners[..., 1::2]
        corners = torch.stack((x * (padded[1] / width), y * (padded[0] / height)), -1)
        boxes = corners.flatten(2) - self._start(sizes, padded).repeat(1, 1, 2)
        labels = index // (height * width)
        return best_of(boxes, scores, labels, self.limits.max_per_image)

    @staticmethod
    def _start(sizes: Tensor, padded: tuple[int, int]) -> Tensor:
        """Where images begin in their padding, x and y: (N, 1, 2)."""
        across = padded[1] // 2 - sizes[:, 1:] // 2
        down = padded[0] // 2 - sizes[:, :1] // 2
        return torch.cat((across, down), dim=1)[:, None].float()
