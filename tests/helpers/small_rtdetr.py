"""A small RT-DETR of ours and the same of transformers."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData

WIDTH, CLASSES = 32, 3
DECODER: dict[str, Any] = dict(
    num_layers=2,
    layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=WIDTH, num_heads=4),
        cross_attn_cfg=dict(
            embed_dims=WIDTH, num_heads=4, num_levels=3, num_points=4, dropout=0.0
        ),
        ffn_cfg=dict(embed_dims=WIDTH, feedforward_channels=40),
    ),
)
NECK: dict[str, Any] = dict(
    type='mmdet_backbones.HybridEncoder',
    in_channels=[64, 128, 256],
    out_channels=WIDTH,
    num_heads=4,
    feedforward_channels=48,
)
BACKBONE: dict[str, Any] = dict(
    type='mmdet_backbones.ResNet',
    stage_blocks=(1, 1, 2, 1),
    deep_stem=True,
    avg_down=True,
    base_channels=8,
    stem_channels=16,
    out_strides=(8, 16, 32),
)
MODEL: dict[str, Any] = dict(
    type='mmdet_backbones.RTDETR',
    num_queries=20,
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True
    ),
    backbone=BACKBONE,
    neck=NECK,
    decoder=DECODER,
    bbox_head=dict(
        type='DINOHead',
        num_classes=CLASSES,
        embed_dims=WIDTH,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='mmdet_backbones.QualityVarifocalLoss'),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)


def build(**changes: Any) -> Any:
    """A detector with random weights, batch normalisation included."""
    register_all_modules()
    return randomise(MODELS.build({**MODEL, **changes})).eval()


def theirs(**changes: Any) -> Any:
    """The same of transformers, with other random weights."""
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrResNetConfig,
    )

    backbone = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 2, 1],
        layer_type='bottleneck',
        out_features=['stage2', 'stage3', 'stage4'],
    )
    settings: dict[str, Any] = dict(
        backbone_config=backbone,
        encoder_in_channels=[64, 128, 256],
        encoder_hidden_dim=WIDTH,
        encoder_ffn_dim=48,
        encoder_attention_heads=4,
        d_model=WIDTH,
        decoder_in_channels=[WIDTH] * 3,
        decoder_ffn_dim=40,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=20,
        num_labels=CLASSES,
    )
    return randomise(RTDetrForObjectDetection(RTDetrConfig(**settings, **changes)))


def randomise(net: torch.nn.Module) -> Any:
    """Give every tensor values that a wrong place of it would change the result by."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith('num_batches_tracked'):
                continue
            noise = torch.rand(value.shape, generator=generator)
            if name.endswith('running_var'):
                value.copy_(noise + 0.5)
            elif value.dim() < 2:
                # Those of normalisations are weights; transformers starts them at 0.
                value.copy_(noise + 0.5 if name.endswith('weight') else noise - 0.5)
            else:
                value.copy_((noise - 0.5) * 3.0 / value[0].numel() ** 0.5)
        # Their embedding of padding, which takes part in nothing.
        for name, value in net.state_dict().items():
            if name.endswith('denoising_class_embed.weight'):
                value[-1] = 0
    return net.eval()


def samples(
    size: tuple[int, int], boxes: list[torch.Tensor], labels: list[torch.Tensor]
) -> list[DetDataSample]:
    """What a data set gives of unpadded images, a list of boxes for each."""
    found = []
    for box, label in zip(boxes, labels, strict=True):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(bboxes=box, labels=label)
        found.append(sample)
    return found
