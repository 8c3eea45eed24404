"""Decoders of YOLOX and YOLOv3, whose heads say how sure they are of an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .decoding import Decoder, candidates_of, limits_of
from .dense import rows_of
from .suppression import Found, gather, top_candidates

# YOLOX has no limit in mmdet; COCO's metric reads the best 100.
_YOLOX_BOXES = 300


def build(model: Any) -> Decoder | None:
    """Make the decoder of a YOLO."""
    from mmdet.models.dense_heads import YOLOV3Head, YOLOXHead

    head = getattr(model, 'bbox_head', None)
    for kind, decoder in ((YOLOXHead, YOLOXDecoder), (YOLOV3Head, YOLOv3Decoder)):
        if isinstance(head, kind) and all(
            getattr(type(head), name) is getattr(kind, name)
            for name in ('predict_by_feat', '_bbox_post_process')
        ):
            return decoder(head)
    return None


class YOLOXDecoder(Decoder):
    """One box and its best class for each place.

    Args:
        head: The detector's own, which is run as it is.
    """

    def __init__(self, head: Any) -> None:
        limits = limits_of(head.test_cfg, 'model.test_cfg', _YOLOX_BOXES)
        super().__init__(limits, head.num_classes)
        self.head = head

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        classes, boxes, objects = self.head(tuple(features))
        priors = self.head.prior_generator.grid_priors(
            [m.shape[-2:] for m in classes],
            dtype=torch.float32,
            device=sizes.device,
            with_stride=True,
        )
        chances = _all_rows(classes, self.head.cls_out_channels).sigmoid()
        sure = _all_rows(objects, 1)[..., 0].sigmoid()
        scores, labels = chances.max(dim=2)
        scores = scores * sure
        there = scores >= self.limits.score
        places = self.head._bbox_decode(torch.cat(priors), _all_rows(boxes, 4))
        scores = torch.where(there, scores, torch.full_like(scores, -1))
        return self.keep_best(places, scores, labels)


class YOLOv3Decoder(Decoder):
    """Anchors of three levels, the best of which are taken over all levels at once.

    Args:
        head: The detector's own, which is run as it is.
    """

    def __init__(self, head: Any) -> None:
        limits = limits_of(head.test_cfg, 'model.test_cfg')
        super().__init__(limits, head.num_classes)
        self.head = head
        self.candidates = candidates_of(head.test_cfg, 'model.test_cfg')
        self.sure = head.test_cfg.get('conf_thr', -1)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        (maps,) = self.head(tuple(features))
        priors = self.head.prior_generator.grid_priors(
            [m.shape[-2:] for m in maps], device=sizes.device
        )
        strides = [
            torch.full_like(of_level[:, :1], stride)
            for of_level, stride in zip(priors, self.head.featmap_strides, strict=True)
        ]
        rows = _all_rows(maps, self.head.num_attrib)
        sure = rows[..., 4].sigmoid()
        chances = rows[..., 5:].sigmoid()
        if self.sure > 0:
            chances = torch.where((sure >= self.sure)[..., None], chances, -1)
        best, places, labels = top_candidates(
            chances, self.limits.score, self.candidates
        )
        boxes = torch.cat((rows[..., :2].sigmoid(), rows[..., 2:4]), dim=-1)
        decoded = self.head.bbox_coder.decode(
            torch.cat(priors)[None].expand(boxes.shape[0], -1, -1),
            boxes,
            torch.cat(strides)[None],
        )
        best = best * sure.gather(1, places)
        decoded = gather(decoded, places)
        if self.head.test_cfg.get('min_bbox_size', -1) >= 0:
            sides = decoded[..., 2:] - decoded[..., :2]
            best = torch.where((sides > 0).all(-1), best, torch.full_like(best, -1))
        return self.keep_best(decoded, best, labels)


def _all_rows(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Rows of all levels in float32: (N, M, C)."""
    return torch.cat([rows_of(m.float(), channels) for m in maps], dim=1)
