"""Decoders of the DETR family: DETR, Conditional and DAB-DETR, Deformable DETR, DINO,
RT-DETR.

mmdet's transformers run as they are. What depends on data there, the valid area of each
image and the shapes of the levels, is made here from the input of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoding import Decoder, limits_of
from .dense import clip
from .level_attention import Shape, levels_of, replace_attention
from .suppression import Found, gather

# From maps to boxes; a detector that changes one of them is another.
_WAY = (
    'predict',
    'forward_transformer',
    'pre_transformer',
    'forward_encoder',
    'pre_decoder',
    'forward_decoder',
)


def build(model: Any) -> Decoder | None:
    """The decoder of a detector of the DETR family.

    Args:
        model: A detector of mmdet. It is not changed; the decoder shares its weights.

    Returns:
        None for a detector that is not of this family, or goes its own way in it, as
        DDQ does.
    """
    from mmdet.models import detectors

    from ..detectors.rtdetr import RTDETR

    kinds = {
        detectors.DETR: OneLevelDecoder,
        detectors.ConditionalDETR: OneLevelDecoder,
        detectors.DABDETR: OneLevelDecoder,
        detectors.DeformableDETR: DeformableDecoder,
        detectors.DINO: DinoDecoder,
        RTDETR: RtdetrDecoder,
    }
    known = next((parent for parent in type(model).__mro__ if parent in kinds), None)
    if known is None or any(
        getattr(type(model), name) is not getattr(known, name) for name in _WAY
    ):
        return None
    return kinds[known](model)


class QueryDecoder(Decoder):
    """From maps to the boxes of the queries with the highest scores.

    Args:
        model: A detector of mmdet.
    """

    def __init__(self, model: Any) -> None:
        head = model.bbox_head
        limits = limits_of(head.test_cfg, 'model.test_cfg', model.num_queries)
        super().__init__(limits, head.num_classes)
        self.model = _share(model)

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: Shape
    ) -> Found:
        model: Any = self.model
        features = [level.float() for level in features]
        encoder_inputs, decoder_inputs = self.prepare(features, sizes, padded)
        memory = model.forward_encoder(**encoder_inputs)
        more, _ = model.pre_decoder(**memory)
        scores, boxes = self.refine(**decoder_inputs, **more)
        return self.select(scores, boxes, sizes)

    def prepare(
        self, features: Sequence[Tensor], sizes: Tensor, padded: Shape
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``pre_transformer`` of the detector returns."""
        raise NotImplementedError

    def refine(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """From what ``forward_decoder`` takes to scores and boxes of the last layer.

        Returns:
            As :meth:`select` takes them.
        """
        raise NotImplementedError

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> Found:
        """Choose and scale boxes as ``DETRHead`` does.

        Args:
            scores: (N, Q, classes) before the activation.
            boxes: (N, Q, 4) as centre, width and height in parts of the image.
            sizes: (N, 2) height and width of the images.
        """
        count = self.limits.max_per_image
        if self.model.bbox_head.loss_cls.use_sigmoid:
            best, index = scores.sigmoid().flatten(1).topk(count)
            labels = index % self.num_classes
            index = index // self.num_classes
        else:
            foreground, labels = F.softmax(scores, dim=-1)[..., :-1].max(-1)
            best, index = foreground.topk(count)
            labels = labels.gather(1, index)
        boxes = gather(boxes, index)
        centre, extent = boxes[..., :2], boxes[..., 2:]
        corners = torch.cat((centre - 0.5 * extent, centre + 0.5 * extent), -1)
        corners = corners * sizes[:, [1, 0, 1, 0]][:, None].to(corners)
        return clip(corners, sizes), best, labels


class OneLevelDecoder(QueryDecoder):
    """Of DETR, Conditional DETR and DAB-DETR, which see the last level only."""

    def prepare(
        self, features: Sequence[Tensor], sizes: Tensor, padded: Shape
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        mask = padding_mask(features[-1], sizes, padded)
        position = _flat(self.model.positional_encoding(mask))
        mask = mask.flatten(1)
        return (
            dict(feat=_flat(features[-1]), feat_mask=mask, feat_pos=position),
            dict(memory_mask=mask, memory_pos=position),
        )

    def refine(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        model: Any = self.model
        scores, boxes = model.bbox_head(**model.forward_decoder(**inputs))
        return scores[-1], boxes[-1]


class DeformableDecoder(QueryDecoder):
    """Of Deformable DETR, with and without two stages, and of DINO."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        replace_attention(self.model)
        self.model.decoder.return_intermediate = False
        # mmdet's make a grid of a number of places that a graph cannot leave open.
        if self.model.encoder is not None:
            self.model.encoder.get_encoder_reference_points = _reference_points
        self.model.gen_encoder_output_proposals = self.propose

    def prepare(
        self, features: Sequence[Tensor], sizes: Tensor, padded: Shape
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        model: Any = self.model
        masks = [padding_mask(level, sizes, padded) for level in features]
        positions = [
            _flat(model.positional_encoding(mask)) + embedding
            for mask, embedding in zip(masks, model.level_embed, strict=True)
        ]
        shared = dict(
            # Where mmdet's functions read shapes from a tensor, a list serves them
            # too, and leaves nothing to look up in the graph.
            spatial_shapes=[(level.shape[2], level.shape[3]) for level in features],
            level_start_index=None,
            valid_ratios=torch.stack([model.get_valid_ratio(m) for m in masks], 1),
        )
        mask = torch.cat([mask.flatten(1) for mask in masks], 1)
        feat = torch.cat([_flat(level) for level in features], 1)
        position = torch.cat(positions, 1)
        return (
            dict(feat=feat, feat_mask=mask, feat_pos=position, **shared),
            dict(memory_mask=mask, **shared),
        )

    def refine(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        model: Any = self.model
        head, last = model.bbox_head, model.decoder.num_layers - 1
        states, references = model.decoder(
            value=inputs.pop('memory'),
            key_padding_mask=inputs.pop('memory_mask'),
            reg_branches=head.reg_branches if model.with_box_refine else None,
            **inputs,
        )
        if not model.with_box_refine:
            references = _move(head.reg_branches[last](states), references)
        return head.cls_branches[last](states), references

    def propose(
        self, memory: Tensor, memory_mask: Tensor, spatial_shapes: Sequence[Shape]
    ) -> tuple[Tensor, Tensor]:
        """What ``gen_encoder_output_proposals`` of the detector returns."""
        boxes = []
        for level, start, (height, width) in levels_of(spatial_shapes):
            inside = ~memory_mask[:, start : start + height * width]
            inside = inside.view(-1, height, width)
            # The sides of the valid area, in places.
            sides = torch.stack((inside[:, 0].sum(1), inside[:, :, 0].sum(1)), -1)
            centres = _places(height, width, memory.device) / sides[:, None]
            extents = torch.full_like(centres, 0.05 * 2**level)
            boxes.append(torch.cat((centres, extents), -1))
        proposals = torch.cat(boxes, 1)
        usable = ((proposals > 0.01) & (proposals < 0.99)).all(-1) & ~memory_mask
        unused = ~usable[..., None]
        proposals = torch.log(proposals / (1 - proposals))
        model: Any = self.model
        memory = model.memory_trans_fc(memory.masked_fill(unused, 0.0))
        proposals = proposals.masked_fill(unused, float('inf'))
        return model.memory_trans_norm(memory), proposals


class DinoDecoder(DeformableDecoder):
    """Of DINO, whose decoder does not give what its head takes of the last layer."""

    def refine(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        noised = inputs.pop('dn_mask')
        assert noised is None, 'there are no noised boxes outside of training'
        decoder, head = self.model.decoder, self.model.bbox_head
        query, references = inputs.pop('query'), inputs.pop('reference_points')
        ratios = inputs.pop('valid_ratios').repeat(1, 1, 2)[:, None]
        inputs['value'] = inputs.pop('memory')
        inputs['key_padding_mask'] = inputs.pop('memory_mask')
        for index, layer in enumerate(decoder.layers):
            if index:
                moved = head.reg_branches[index - 1](query)
                references = _move(moved, references, eps=1e-3)
            scaled = references[:, :, None] * ratios
            query = layer(
                query,
                query_pos=_encode(decoder.ref_point_head, scaled[:, :, 0]),
                self_attn_mask=None,
                reference_points=scaled,
                **inputs,
            )
        states, last = decoder.norm(query), decoder.num_layers - 1
        boxes = _move(head.reg_branches[last](states), references)
        return head.cls_branches[last](states), boxes


class RtdetrDecoder(DeformableDecoder):
    """Of RT-DETR, whose encoder is its neck."""

    def prepare(
        self, features: Sequence[Tensor], sizes: Tensor, padded: Shape
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        model: Any = self.model
        maps = model.project(features)
        masks = [padding_mask(level, sizes, padded) for level in maps]
        shared = dict(
            memory_mask=torch.cat([mask.flatten(1) for mask in masks], 1),
            spatial_shapes=[(level.shape[2], level.shape[3]) for level in maps],
        )
        ratios = torch.stack([model.get_valid_ratio(m) for m in masks], 1)
        memory = torch.cat([_flat(level) for level in maps], 1)
        return (
            dict(memory=memory, **shared),
            dict(**shared, valid_ratios=ratios, level_start_index=None),
        )

    def refine(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        model: Any = self.model
        head, last = model.bbox_head, model.decoder.num_layers - 1
        # Not by way of the detector, which asks for the number of images.
        states, boxes = model.decoder(
            value=inputs.pop('memory'),
            key_padding_mask=inputs.pop('memory_mask'),
            self_attn_mask=inputs.pop('dn_mask'),
            reg_branches=head.reg_branches,
            **inputs,
        )
        return head.cls_branches[last](states[-1]), boxes[-1]


def padding_mask(feature: Tensor, sizes: Tensor, padded: Shape) -> Tensor:
    """Which places of a level are padding.

    Args:
        feature: (N, C, H, W).
        sizes: (N, 2) height and width of the images without padding.
        padded: Height and width with it.

    Returns:
        (N, H, W), True for padding.
    """
    height, width = feature.shape[-2:]
    rows = _is_padding(height, padded[0], sizes[:, :1])
    columns = _is_padding(width, padded[1], sizes[:, 1:])
    return rows[:, :, None] | columns[:, None, :]


def _is_padding(count: int, padded: int, valid: Tensor) -> Tensor:
    """(N, count); the nearest pixel is found as ``F.interpolate`` finds it."""
    place = torch.arange(count, dtype=torch.float32, device=valid.device)
    return (place * (padded / count)).floor() >= valid


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """x and y of the middle of each place of a level: (H * W, 2)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device) + 0.5,
        torch.arange(width, dtype=torch.float32, device=device) + 0.5,
        indexing='ij',
    )
    return torch.stack((x.flatten(), y.flatten()), -1)


def _reference_points(
    spatial_shapes: Sequence[Shape], valid_ratios: Tensor, device: torch.device
) -> Tensor:
    """What ``get_encoder_reference_points`` of the encoder returns."""
    levels = []
    for level, (height, width) in enumerate(spatial_shapes):
        ratio = valid_ratios[:, None, level]
        sides = torch.stack((ratio[..., 0] * width, ratio[..., 1] * height), -1)
        levels.append(_places(height, width, device) / sides)
    return torch.cat(levels, 1)[:, :, None] * valid_ratios[:, None]


def _move(by: Tensor, references: Tensor, eps: float = 1e-5) -> Tensor:
    """Boxes (N, Q, 4) from what a head says of points or boxes (N, Q, 2 or 4)."""
    from mmdet.models.layers import inverse_sigmoid

    start = inverse_sigmoid(references, eps=eps)
    return F.pad(start, (0, 4 - start.shape[-1])).add(by).sigmoid()


def _encode(head: Any, boxes: Tensor) -> Tensor:
    from mmdet.models.layers import coordinate_to_encoding

    # The forks encode each of four coordinates with twice as many numbers.
    count = head.layers[0].in_features // 4
    return head(coordinate_to_encoding(boxes, num_feats=count))


def _flat(level: Tensor) -> Tensor:
    return level.flatten(2).transpose(1, 2)


def _share(model: Any) -> Any:
    """A copy without backbone and neck, with the weights of the original.

    They keep their precision when the original is converted: half of it is too little
    for places in an image.
    """
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    memo[id(model.backbone)] = nn.Identity()
    if model.with_neck:
        memo[id(model.neck)] = nn.Identity()
    return deepcopy(model, memo)
