"""Small detectors with proposals or queries: random weights, nothing is trained."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from stretched import stretch
from torch import nn

from mmdet_backbones.check.trial import random_detector

SIZE = (128, 160)
QUERIES = 20
CONFIGS = {
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Conditional DETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'Deformable DETR, refined': (
        'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
    ),
    'Deformable DETR, two stages': (
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    ),
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Faster R-CNN C4': 'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py',
    'Faster R-CNN DC5': 'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
}


def small_detector(name: str, fit: bool = True, **test_settings: Any) -> Any:
    """Build one whose scores differ from place to place.

    Args:
        name: A key of ``CONFIGS``.
        fit: Whether they do; otherwise it is built only.
        test_settings: For ``test_cfg.rcnn``.
    """
    path, _ = Config._get_cfg_path(f'mmdet::{CONFIGS[name]}', '')
    model = Config.fromfile(path).model
    if 'encoder' in model:
        _shrink_queries(model)
    else:
        _shrink_regions(model)
        model.test_cfg.rcnn.update(score_thr=0.01, **test_settings)
    torch.manual_seed(0)
    init_default_scope('mmdet')
    detector = random_detector(model)
    detector.eval()
    if 'encoder' in model:
        _differ(detector)
    if fit:
        stretch(detector, SIZE)
    return detector


def _backbone(*strides: int) -> dict[str, Any]:
    return dict(
        type='mmdet_backbones.ResNet', depth=18, base_channels=8, out_strides=strides
    )


def _shrink_queries(model: Any) -> None:
    levels = (8, 16, 32)[-len(model.neck.in_channels) :]
    model.backbone = _backbone(*levels)
    model.neck.in_channels = [2 * level for level in levels]
    model.num_queries = QUERIES
    model.encoder.num_layers = model.decoder.num_layers = 2
    for part in (model.encoder, model.decoder):
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    if 'max_per_img' in model.test_cfg:
        model.test_cfg.max_per_img = QUERIES


def _shrink_regions(model: Any) -> None:
    roi, rpn = model.roi_head, model.rpn_head
    heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    if 'neck' in model:
        model.backbone = _backbone(4, 8, 16, 32)
        model.neck.in_channels, model.neck.out_channels = [8, 16, 32, 64], 32
        channels = 32
    else:
        stride = roi.bbox_roi_extractor.featmap_strides[0]
        model.backbone = _backbone(stride)
        channels = 2 * stride
    extractors = roi.bbox_roi_extractor
    for extractor in extractors if isinstance(extractors, list) else [extractors]:
        extractor.out_channels = channels
        # Regions of these images are spread over all levels.
        extractor.finest_scale = 12
    if 'shared_head' in roi:
        roi.shared_head = dict(type='SmallSharedHead', channels=channels)
    for head in heads:
        head.in_channels, head.num_classes = channels, 7
        if 'fc_out_channels' in head:
            head.fc_out_channels = 32
    rpn.in_channels, rpn.feat_channels = channels, 32
    if 'mask_head' in roi:
        roi.mask_head.update(
            in_channels=channels, conv_out_channels=8, num_convs=1, num_classes=7
        )
        roi.mask_roi_extractor.out_channels = channels
    model.test_cfg.rpn.update(nms_pre=200, max_per_img=100)


def _differ(detector: nn.Module) -> None:
    """Give each query and each place of attention something of its own."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in detector.named_parameters():
        if 'sampling_offsets.weight' in name or 'attention_weights.weight' in name:
            weight.data = 0.05 * torch.randn(weight.shape, generator=generator)
        elif 'query_embedding' in name:
            weight.data = 2 * torch.randn(weight.shape, generator=generator)


def _register() -> None:
    from mmdet.registry import MODELS

    @MODELS.register_module(force=True)
    class SmallSharedHead(nn.Module):
        """Stands where the last stage of a ResNet follows the pooling."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).relu()


_register()
