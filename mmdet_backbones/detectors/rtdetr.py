"""RT-DETR, as a detector of mmdet."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.detectors import DINO, DeformableDETR
from torch import Tensor, nn

from ..registry import MODELS
from .rtdetr_decoder import RTDETRDecoder

# As many noised boxes, and as noisy ones, as the published nets are trained with.
_NOISE: dict[str, Any] = dict(
    label_noise_scale=0.5,
    box_noise_scale=1.0,
    group_cfg=dict(dynamic=True, num_dn_queries=100),
)


@MODELS.register_module()
class RTDETR(DINO):
    """RT-DETR, `arXiv 2304.08069 <https://arxiv.org/abs/2304.08069>`_.

    The neck is the encoder (:class:`~mmdet_backbones.HybridEncoder`); its maps go
    through a 1x1 convolution to the decoder. Queries are the places with the highest
    scores: their features, not learned ones as in DINO. The head is mmdet's
    ``DINOHead``; with :class:`~mmdet_backbones.QualityVarifocalLoss` as ``loss_cls``
    its scores learn to be overlaps, which makes the choice of queries aware of them
    (sec. 4.3). Queries and decoder see no padding, the encoder does.

    Args:
        backbone: Config of the backbone.
        neck: Of the encoder, whose maps all have the channels of the decoder.
        decoder: ``num_layers`` and ``layer_cfg``, as
            :class:`~mmdet_backbones.detectors.rtdetr_decoder.RTDETRDecoder` takes
            them; ``cross_attn_cfg`` has ``num_levels``, the number of maps.
        bbox_head: Of the head, of mmdet's ``DINOHead`` or one derived from it.
        num_queries: Boxes that are refined, and most that are found.
        dn_cfg: Of mmdet's ``CdnQueryGenerator``, as in DINO; left out, that of the
            published nets.
        norm_cfg: Normalisation of the 1x1 convolutions, as mmcv takes it.
        train_cfg: With the ``assigner``.
        test_cfg: With ``max_per_img``.
        data_preprocessor: As in mmdet.
        init_cfg: As in mmengine.

    Raises:
        ValueError: From ``forward``, if the neck gives another number of maps, or these
            have fewer places than there are queries.
    """

    # First its config, as in mmdet, then the module.
    decoder: Any

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any] | list[dict[str, Any]],
        decoder: dict[str, Any],
        bbox_head: dict[str, Any],
        num_queries: int = 300,
        dn_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        self.norm_cfg = norm_cfg or dict(type='BN')
        layer = decoder.get('layer_cfg') or {}
        super().__init__(
            backbone,
            neck,
            # mmdet writes into its configs, which a second detector must not find.
            decoder=deepcopy(decoder),
            bbox_head=deepcopy(bbox_head),
            num_queries=num_queries,
            with_box_refine=True,
            as_two_stage=True,
            num_feature_levels=layer.get('cross_attn_cfg', {}).get('num_levels', 4),
            dn_cfg=deepcopy(dn_cfg or _NOISE),
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )

    def _init_layers(self) -> None:
        self.decoder = RTDETRDecoder(**self.decoder)
        width: int = self.decoder.embed_dims
        self.embed_dims = width
        self.input_proj = nn.ModuleList(
            ConvModule(width, width, 1, norm_cfg=self.norm_cfg, act_cfg=None)
            for _ in range(self.num_feature_levels)
        )
        self.memory_trans_fc = nn.Linear(width, width)
        self.memory_trans_norm = nn.LayerNorm(width)

    def init_weights(self) -> None:
        """Initialise what the head, the neck and the backbone do not."""
        nn.init.xavier_uniform_(self.memory_trans_fc.weight)
        for layer in self.decoder.query_pos_head.layers:
            nn.init.xavier_uniform_(layer.weight)
        # Last, so that weights of the whole detector stay. DeformableDETR's own would
        # ask for an encoder.
        super(DeformableDETR, self).init_weights()

    def pre_transformer(
        self, mlvl_feats: Sequence[Tensor], batch_data_samples: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put all places of all maps into a row.

        Args:
            mlvl_feats: (N, C, H, W) of each level, from the neck.
            batch_data_samples: Of the images; None if there is no padding.

        Returns:
            What :meth:`forward_encoder` takes, and what the decoder takes beside that.
        """
        maps = self.project(mlvl_feats)
        masks = padding_masks(maps, batch_data_samples)
        shapes = maps[0].new_tensor([x.shape[2:] for x in maps], dtype=torch.long)
        starts = torch.cat((shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]))
        ratios = maps[0].new_ones(len(maps[0]), len(maps), 2)
        mask = None
        if masks is not None:
            ratios = torch.stack([self.get_valid_ratio(m) for m in masks], 1)
            mask = torch.cat([m.flatten(1) for m in masks], 1)
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        shared = dict(memory_mask=mask, spatial_shapes=shapes)
        more = dict(level_start_index=starts, valid_ratios=ratios)
        return dict(memory=memory, **shared), dict(**shared, **more)

    def project(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Bring the maps of the neck to what the decoder attends to.

        Args:
            maps: (N, C, H, W) of each level.

        Raises:
            ValueError: If they are not as many as the decoder is made for.
        """
        if len(maps) != self.num_feature_levels:
            raise ValueError(
                f'the decoder of RTDETR is made for {self.num_feature_levels} maps, '
                f'the neck gives {len(maps)}: write model.decoder.layer_cfg.'
                f'cross_attn_cfg.num_levels={len(maps)}, or other levels in the '
                'backbone'
            )
        return [conv(x) for conv, x in zip(self.input_proj, maps, strict=True)]

    def forward_encoder(self, **memory: Any) -> dict[str, Any]:
        """Pass on what :meth:`pre_transformer` made: the neck is the encoder."""
        return memory

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Tensor,
        batch_data_samples: Any = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose the queries.

        Args:
            memory: (N, K, C), all places of all levels.
            memory_mask: (N, K), True for padding; None without any.
            spatial_shapes: (L, 2) height and width of each level.
            batch_data_samples: With the boxes, in training.

        Returns:
            What the decoder takes, and what the loss takes beside its output.
        """
        self._require_places(memory)
        places, anchors = self.gen_encoder_output_proposals(
            memory, memory_mask, spatial_shapes
        )
        last = self.decoder.num_layers
        scores = self.bbox_head.cls_branches[last](places)
        chosen = scores.amax(-1).topk(self.num_queries, dim=1).indices[..., None]
        scores, places, anchors = (
            x.gather(1, chosen.expand(-1, -1, x.shape[-1]))
            for x in (scores, places, anchors)
        )
        boxes = (self.bbox_head.reg_branches[last](places) + anchors).sigmoid()
        # The decoder's losses leave the choice to the loss of the chosen.
        query, reference, mask = places.detach(), boxes.detach(), None
        losses: dict[str, Any] = {}
        if self.training:
            noised, around, mask, meta = self.dn_query_generator(batch_data_samples)
            query = torch.cat((noised, query), 1)
            reference = torch.cat((around.sigmoid(), reference), 1)
            losses = dict(
                enc_outputs_class=scores, enc_outputs_coord=boxes, dn_meta=meta
            )
        inputs = dict(
            query=query, memory=memory, reference_points=reference, dn_mask=mask
        )
        return inputs, losses

    def _require_places(self, memory: Tensor) -> None:
        # A graph leaves the number open.
        if torch.compiler.is_compiling() or memory.shape[1] >= self.num_queries:
            return
        count = memory.shape[1]
        raise ValueError(
            f'RTDETR chooses num_queries={self.num_queries} places of its maps, and '
            f'images of this size have {count}: take larger images, or write '
            f'model.num_queries={count} and model.test_cfg.max_per_img={count}'
        )


def padding_masks(
    maps: Sequence[Tensor], batch_data_samples: Any
) -> list[Tensor] | None:
    """Find the padding of a batch on each of its maps.

    Args:
        maps: (N, C, H, W) of each level.
        batch_data_samples: Of the images; None if there is no padding.

    Returns:
        (N, H, W) for each level, True for padding; None without any.
    """
    samples = batch_data_samples or ()
    sizes = [tuple(sample.img_shape[:2]) for sample in samples]
    padded = tuple(samples[0].batch_input_shape) if samples else ()
    if all(size == padded for size in sizes):
        return None
    mask = maps[0].new_ones((len(sizes), 1, *padded))
    for image, (height, width) in zip(mask, sizes, strict=True):
        image[:, :height, :width] = 0
    return [F.interpolate(mask, size=x.shape[2:]).bool()[:, 0] for x in maps]
