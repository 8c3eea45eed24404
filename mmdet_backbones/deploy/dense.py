"""Decoders of one-stage detectors whose heads predict at every place of every map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .decoding import Decoder, candidates_of, limits_of
from .suppression import Found, gather, top_candidates

Clip = Callable[[Tensor, Tensor], Tensor]


def build(model: Any) -> Decoder | None:
    """Make the decoder of a detector that predicts as mmdet's dense heads do.

    Raises:
        UserError: If it is one of them with a part that is not known here.
    """
    from mmdet.models.dense_heads import GFLHead, TOODHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    head = getattr(model, 'bbox_head', None)
    if not isinstance(head, BaseDenseHead) or hasattr(model, 'roi_head'):
        return None
    kind = type(head)
    same = all(
        getattr(kind, name) is getattr(BaseDenseHead, name)
        for name in ('predict', 'predict_by_feat', '_bbox_post_process')
    )
    single = kind._predict_by_feat_single
    if not same:
        return None
    if single is BaseDenseHead._predict_by_feat_single:
        return DenseDecoder(head)
    if single is GFLHead._predict_by_feat_single:
        return DistributionDecoder(head)
    if single is TOODHead._predict_by_feat_single:
        return AlignedDecoder(head)
    return None


class DenseDecoder(Decoder):
    """RetinaNet, FCOS, ATSS, SSD, RTMDet, YOLOF and all that predict alike.

    Args:
        head: The detector's own, which is run as it is.
    """

    def __init__(self, head: Any) -> None:
        limits = limits_of(head.test_cfg, 'model.test_cfg')
        super().__init__(limits, head.num_classes)
        self.head = head
        self.candidates = candidates_of(head.test_cfg, 'model.test_cfg')
        self.clip = self._clip()

    def _clip(self) -> Clip | None:
        return clip_of(self.head.bbox_coder)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        outputs = [[m.float() for m in maps] for maps in self.head(tuple(features))]
        scores, boxes, *more = outputs
        factors = more[0] if more else [None] * len(scores)
        priors = self.head.prior_generator.grid_priors(
            [m.shape[-2:] for m in scores], dtype=torch.float32, device=sizes.device
        )
        levels = zip(scores, boxes, factors, priors, range(len(scores)), strict=True)
        found = [self._of_level(*level) for level in levels]
        best, labels, places = (
            torch.cat(part, dim=1) for part in zip(*found, strict=True)
        )
        if self.clip is not None:
            places = self.clip(places, sizes)
        sides = places[..., 2:] - places[..., :2]
        if self.head.test_cfg.get('min_bbox_size', -1) >= 0:
            best = torch.where((sides > 0).all(-1), best, torch.full_like(best, -1))
        return self.keep_best(places, best, labels)

    def _of_level(
        self,
        scores: Tensor,
        boxes: Tensor,
        factors: Tensor | None,
        priors: Tensor,
        level: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, K), labels (N, K) and boxes (N, K, 4) of the best of a level."""
        best, places, labels = top_candidates(
            self._activate(rows_of(scores, self.head.cls_out_channels)),
            self.limits.score,
            self.candidates,
        )
        if factors is not None:
            # Those that are none stay below zero.
            best = best * gather(rows_of(factors, 1), places)[..., 0].sigmoid()
        rows = self._boxes(boxes, level)
        found = self._decode(
            gather(priors[None].expand(rows.shape[0], -1, -1), places),
            gather(rows, places),
        )
        return best, labels, found

    def _activate(self, scores: Tensor) -> Tensor:
        if self.head.use_sigmoid_cls:
            return scores.sigmoid()
        return scores.softmax(-1)[..., :-1]

    def _boxes(self, boxes: Tensor, level: int) -> Tensor:
        """What the head says about the box of each place: (N, M, D)."""
        return rows_of(boxes, self.head.bbox_coder.encode_size)

    def _decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        decoded = self.head.bbox_coder.decode(priors.flatten(0, 1), boxes.flatten(0, 1))
        return getattr(decoded, 'tensor', decoded).view(boxes.shape[0], -1, 4)


class DistributionDecoder(DenseDecoder):
    """GFL: a side is the mean of a distribution over distances."""

    def _boxes(self, boxes: Tensor, level: int) -> Tensor:
        stride = self.head.prior_generator.strides[level][0]
        sides = self.head.integral(boxes.permute(0, 2, 3, 1))
        return sides.view(boxes.shape[0], -1, 4) * stride

    def _activate(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def _decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        centres = self.head.anchor_center(priors.flatten(0, 1))
        return self.head.bbox_coder.decode(centres, boxes.flatten(0, 1)).view(
            boxes.shape[0], -1, 4
        )


class AlignedDecoder(DenseDecoder):
    """TOOD: the head gives probabilities and boxes, and mmdet clips none of them."""

    def _clip(self) -> Clip | None:
        return None

    def _boxes(self, boxes: Tensor, level: int) -> Tensor:
        return rows_of(boxes, 4) * self.head.prior_generator.strides[level][0]

    def _activate(self, scores: Tensor) -> Tensor:
        return scores

    def _decode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        return boxes


def rows_of(maps: Tensor, channels: int) -> Tensor:
    """Lay a map (N, A * C, H, W) out as (N, H * W * A, C)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, channels)


def clip_of(coder: Any) -> Clip | None:
    """Find how a box coder of mmdet clips what it decodes.

    Args:
        coder: A box coder.

    Returns:
        Clips boxes (N, M, 4) to sizes (N, 2), height first; None if they stay as they
        are.

    Raises:
        UserError: If it is not known.
    """
    from mmdet.models.task_modules import coders

    known = {
        coders.DeltaXYWHBBoxCoder: 0,
        coders.TBLRBBoxCoder: 0,
        coders.DistancePointBBoxCoder: 0,
        coders.LegacyDeltaXYWHBBoxCoder: 1,
    }
    kind = type(coder)
    if kind not in known:
        names = ', '.join(sorted(cls.__name__ for cls in known))
        raise UserError(
            f'the box coder {kind.__name__} cannot be exported: known are {names}'
        )
    if not getattr(coder, 'clip_border', True):
        return None
    return partial(clip, margin=known[kind])


def clip(boxes: Tensor, sizes: Tensor, margin: int = 0) -> Tensor:
    """Clip boxes to their images.

    Args:
        boxes: (N, M, 4) as x1, y1, x2, y2.
        sizes: (N, 2), height and width.
        margin: Pixels taken off the size.
    """
    most = (sizes[:, [1, 0, 1, 0]] - margin).to(boxes)[:, None]
    return torch.minimum(boxes.clamp(min=0), most)
