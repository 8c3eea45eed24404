"""Decoders of detectors with proposals: Faster R-CNN and Cascade R-CNN.

The number of proposals is fixed: where there are fewer, empty ones fill up, which have
no score. Of Mask R-CNN and its kin the boxes are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..errors import UserError
from .decoding import Decoder, candidates_of, limits_of
from .dense import clip_of, rows_of
from .suppression import (
    MOST_CANDIDATES,
    Found,
    gather,
    suppress,
    top_candidates,
)

# From maps to boxes; a part that changes one of them is another.
_RPN_WAY = (
    'predict',
    'predict_by_feat',
    '_predict_by_feat_single',
    '_bbox_post_process',
)
_ROI_WAY = ('predict', 'predict_bbox', '_bbox_forward', '_refine_roi')
_POOL_WAY = ('forward', 'map_roi_levels')
_BOX_WAY = ('predict_by_feat', '_predict_by_feat_single', 'regress_by_class')


def build(model: Any) -> Decoder | None:
    """Make the decoder of a detector with proposals.

    Raises:
        UserError: If it is one of them with a part that is not known here.
    """
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead

    if not hasattr(model, 'roi_head'):
        return None
    for parent, decoder in (
        (StandardRoIHead, TwoStageDecoder),
        (CascadeRoIHead, CascadeDecoder),
    ):
        if isinstance(model.roi_head, parent):
            _check(model, parent)
            return decoder(model)
    return None


class Proposals(nn.Module):
    """The first stage.

    Args:
        head: ``RPNHead`` of mmdet, which is run as it is.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head
        self.limits = limits_of(head.test_cfg, 'model.test_cfg.rpn')
        self.candidates = candidates_of(head.test_cfg, 'model.test_cfg.rpn')
        self.clip = clip_of(head.bbox_coder)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Propose.

        Args:
            features: (N, C, H, W) of each level.
            sizes: (N, 2) height and width of the images.

        Returns:
            Boxes (N, P, 4) and which of them are there (N, P).
        """
        scores, boxes = (
            [m.float() for m in maps] for maps in self.head(tuple(features))
        )
        priors = self.head.prior_generator.grid_priors(
            [maps.shape[-2:] for maps in scores],
            dtype=torch.float32,
            device=sizes.device,
        )
        levels = zip(scores, boxes, priors, range(len(priors)), strict=True)
        found = [self._of_level(*level) for level in levels]
        best, places, numbers = (
            torch.cat(part, 1) for part in zip(*found, strict=True)
        )
        if self.clip is not None:
            places = self.clip(places, sizes)
        if self.head.test_cfg.get('min_bbox_size', -1) >= 0:
            sides = places[..., 2:] - places[..., :2]
            best = torch.where((sides > 0).all(-1), best, torch.full_like(best, -1))
        places, _, numbers = suppress(
            places,
            best,
            numbers,
            self.limits.nms_iou,
            self.limits.max_per_image,
            self.limits.class_agnostic,
            len(priors),
        )
        return places, numbers >= 0

    def _of_level(
        self, scores: Tensor, boxes: Tensor, priors: Tensor, level: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, K), boxes (N, K, 4) and the number (N, K) of a level."""
        rows = rows_of(scores, self.head.cls_out_channels)
        if self.head.use_sigmoid_cls:
            rows = rows.sigmoid()
        else:
            rows = rows.softmax(-1)[..., :-1]
        best, places, _ = top_candidates(rows, -1, self.candidates)
        deltas = gather(rows_of(boxes, 4), places)
        anchors = gather(priors[None].expand(deltas.shape[0], -1, -1), places)
        decoded = _decode(self.head.bbox_coder, anchors, deltas)
        return best, decoded, torch.full_like(places, level)


class Pooling(nn.Module):
    """``SingleRoIExtractor`` without a list of regions for each level.

    The levels become images of one batch, in which each region chooses its own. Regions
    end where their image ends.

    Args:
        extractor: Of mmdet.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Pool.

        Args:
            features: (N, C, H, W) of each level.
            boxes: (N, P, 4).

        Returns:
            (N * P, C, PH, PW).
        """
        layers = self.extractor.roi_layers
        images = torch.arange(boxes.shape[0], device=boxes.device).to(boxes)
        images = images[:, None, None].expand(-1, boxes.shape[1], 1)
        rois = torch.cat((images, boxes), -1).flatten(0, 1)
        if len(layers) == 1:
            return _pool(layers[0], features[0], rois, layers[0].spatial_scale)
        level = self.extractor.map_roi_levels(rois, len(layers))
        scales = rois.new_tensor([layer.spatial_scale for layer in layers])
        image = level.to(rois) * boxes.shape[0] + rois[:, 0]
        places = rois[:, 1:] * scales[level][:, None]
        rois = torch.cat((image[:, None], places), -1)
        return _pool(layers[0], _sheets(features[: len(layers)]), rois, 1.0)


class TwoStageDecoder(Decoder):
    """Of Faster R-CNN, with and without levels or layers behind the pooling.

    Args:
        model: A detector of mmdet whose parts are run as they are.
    """

    def __init__(self, model: Any) -> None:
        stages = _stages(model)
        last = stages[-1][1]
        limits = limits_of(model.roi_head.test_cfg, 'model.test_cfg.rcnn')
        super().__init__(limits, last.num_classes)
        self.proposals = Proposals(model.rpn_head)
        self.pooling = nn.ModuleList(Pooling(extractor) for extractor, _ in stages)
        self.heads = nn.ModuleList(head for _, head in stages)
        shared = model.roi_head.with_shared_head
        self.shared = model.roi_head.shared_head if shared else nn.Identity()
        self.clips = [clip_of(head.bbox_coder) for _, head in stages]
        classes = self.num_classes
        if limits.score > 0 and not last.custom_cls_channels:
            # The scores of a proposal add up to one.
            classes = min(classes, math.ceil(1 / limits.score))
        proposals = self.proposals.limits.max_per_image
        self.candidates = min(classes * proposals, MOST_CANDIDATES)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        boxes, there = self.proposals(features, sizes)
        features = [level.float() for level in features]
        boxes, scores, deltas = self.refine(features, boxes, sizes)
        return self.select(boxes, there, scores, deltas, sizes)

    def refine(
        self, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Look at the proposals.

        Args:
            features: (N, C, H, W) of each level.
            boxes: (N, P, 4).
            sizes: (N, 2) height and width of the images.

        Returns:
            Boxes (N, P, 4); their scores (N, P, classes + 1) before the activation, and
            what the head says of each (N, P, D).
        """
        return boxes, *self.look(0, features, boxes)

    def look(
        self, stage: int, features: Sequence[Tensor], boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores and deltas that one stage gives to boxes, as of :meth:`refine`."""
        # The head may compute in half precision, the regions are found in full.
        pooled = self.pooling[stage](features, boxes).to(self.precision())
        scores, deltas = self.heads[stage](self.shared(pooled))
        shape = (-1, boxes.shape[1])
        return scores.float().unflatten(0, shape), deltas.float().unflatten(0, shape)

    def precision(self) -> torch.dtype:
        """In which the heads compute."""
        return next(self.heads.parameters()).dtype

    def select(
        self,
        boxes: Tensor,
        there: Tensor,
        scores: Tensor,
        deltas: Tensor,
        sizes: Tensor,
    ) -> Found:
        """Choose the best boxes, move them, and keep what no better one covers.

        Args:
            boxes: (N, P, 4).
            there: (N, P), False for boxes that fill up.
            scores: (N, P, classes + 1) before the activation.
            deltas: (N, P, D), for all classes or one after the other.
            sizes: (N, 2) height and width of the images.
        """
        head: Any = self.heads[-1]
        if head.custom_cls_channels:
            scores = head.loss_cls.get_activation(scores.flatten(0, 1))
            scores = scores.unflatten(0, there.shape)
        else:
            scores = F.softmax(scores, dim=-1)
        scores = torch.where(
            there[..., None], scores[..., :-1], scores.new_tensor(-1.0)
        )
        best, places, labels = top_candidates(
            scores, self.limits.score, self.candidates
        )
        rows = places
        if not head.reg_class_agnostic:
            deltas = deltas.reshape(boxes.shape[0], -1, 4)
            rows = places * self.num_classes + labels
        found = _decode(head.bbox_coder, gather(boxes, places), gather(deltas, rows))
        if self.clips[-1] is not None:
            found = self.clips[-1](found, sizes)
        return self.keep_best(
            found,
            best,
            labels,
        )


class CascadeDecoder(TwoStageDecoder):
    """Of Cascade R-CNN: each stage starts where the one before has moved the boxes."""

    def refine(
        self, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores, deltas = self.look(0, features, boxes)
        total = scores
        for stage in range(1, len(self.heads)):
            boxes = self._move(stage - 1, boxes, scores, deltas, sizes)
            scores, deltas = self.look(stage, features, boxes)
            total = total + scores
        return boxes, total / float(len(self.heads)), deltas

    def _move(
        self, stage: int, boxes: Tensor, scores: Tensor, deltas: Tensor, sizes: Tensor
    ) -> Tensor:
        """As the class with the highest score says."""
        head: Any = self.heads[stage]
        if head.custom_activation:
            scores = head.loss_cls.get_activation(scores.flatten(0, 1))
            scores = scores.unflatten(0, boxes.shape[:2])
        if not head.reg_class_agnostic:
            label = scores[..., :-1].argmax(-1)[..., None, None]
            of_class = deltas.unflatten(-1, (-1, 4))
            deltas = of_class.gather(2, label.expand(-1, -1, 1, 4))[:, :, 0]
        moved = _decode(head.bbox_coder, boxes, deltas)
        clip = self.clips[stage]
        return moved if clip is None else clip(moved, sizes)


def _decode(coder: Any, boxes: Tensor, deltas: Tensor) -> Tensor:
    """Decode (N, K, 4) and (N, K, 4) without clipping."""
    decoded = coder.decode(boxes.flatten(0, 1), deltas.flatten(0, 1))
    return getattr(decoded, 'tensor', decoded).unflatten(0, (-1, boxes.shape[1]))


def _sheets(levels: Sequence[Tensor]) -> Tensor:
    """Levels (N, C, H, W) of falling size as (L * N, C, H + 1, W + 1) of the first."""
    height, width = levels[0].shape[-2:]
    sheets = []
    for level in levels:
        # Half a pixel behind the last one still counts, and is like the last.
        behind = F.pad(level, (0, 1, 0, 1), mode='replicate')
        sides = (0, width - level.shape[3], 0, height - level.shape[2])
        sheets.append(F.pad(behind, sides))
    return torch.cat(sheets)


def _pool(layer: Any, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
    return roi_align(
        feature, rois, layer.output_size, scale, layer.sampling_ratio, layer.aligned
    )


def _clips(*heads: Any) -> bool:
    coders = (getattr(head, 'bbox_coder', None) for head in heads)
    return all(getattr(coder, 'clip_border', True) for coder in coders)


def _stages(model: Any) -> list[tuple[Any, Any]]:
    """The extractor and the head of each stage."""
    extractor, head = model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head
    if isinstance(head, nn.ModuleList):
        return list(zip(extractor, head, strict=True))
    return [(extractor, head)]


def _check(model: Any, parent: type) -> None:
    """Refuse parts that go another way than those that are followed here."""
    from mmcv.ops import RoIAlign
    from mmdet.models import RPNHead
    from mmdet.models.roi_heads import SingleRoIExtractor
    from mmdet.models.roi_heads.bbox_heads import BBoxHead

    rpn = getattr(model, 'rpn_head', None)
    asked: list[tuple[str, Any, type, Sequence[str]]] = [
        ('rpn_head', rpn, RPNHead, _RPN_WAY),
        ('roi_head', model.roi_head, parent, _ROI_WAY),
    ]
    for extractor, head in _stages(model):
        asked += [
            ('roi_head.bbox_roi_extractor', extractor, SingleRoIExtractor, _POOL_WAY),
            ('roi_head.bbox_head', head, BBoxHead, _BOX_WAY),
        ]
        asked += [
            ('roi_head.bbox_roi_extractor.roi_layer', layer, RoIAlign, ('forward',))
            for layer in extractor.roi_layers
        ]
    problems = [
        f'model.{key} is {type(part).__name__}, which does not do as {known.__name__}'
        for key, part, known, way in asked
        if not isinstance(part, known)
        or any(
            getattr(type(part), name, None) is not getattr(known, name, None)
            for name in way
        )
    ]
    for extractor, head in _stages(model):
        if any(getattr(r, 'pool_mode', 'avg') != 'avg' for r in extractor.roi_layers):
            problems.append(
                'model.roi_head.bbox_roi_extractor.roi_layer.pool_mode is '
                "'max', known is 'avg'"
            )
        if len(extractor.roi_layers) > 1 and not _clips(rpn, head):
            problems.append(
                'clip_border of a bbox_coder in model.rpn_head or model.roi_head is '
                'False, known is True'
            )
        if not (head.with_cls and head.with_reg):
            problems.append('model.roi_head.bbox_head has no classes or no boxes')
    if problems:
        lines = '\n'.join(f'  {line}' for line in dict.fromkeys(problems))
        raise UserError(f'{type(model).__name__} cannot be exported:\n{lines}')
