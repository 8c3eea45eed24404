# Faster R-CNN (arXiv 1506.01497) on ResNet-50 (arXiv 1512.03385) with torchvision's
# ImageNet weights, an FPN (arXiv 1612.03144) that averages instead of adding, and
# anchors by size and aspect ratio per level: the settings FUSE_TYPE, SIZES and
# ASPECT_RATIOS of detectron2. Not trained.
# Backbone: 23.45 M parameters, 87.6 GMACs at 800 x 1344; detector: 41.7 M parameters.
#   mmdet-backbones train \
#     configs/faster_rcnn/faster-rcnn_resnet-50_fpn-avg-sized-anchors_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ResNet',
        depth=50,
        out_strides=(4, 8, 16, 32),
        freeze_at=2,
        norm_cfg=dict(type='mmdet_backbones.FrozenBN'),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(type='mmdet_backbones.FPN', fuse_type='avg'),
    rpn_head=dict(
        anchor_generator=dict(
            _delete_=True,
            type='mmdet_backbones.SizedAnchorGenerator',
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[[0.5, 1.0, 2.0]],
            strides=[4, 8, 16, 32, 64])))

auto_scale_lr = dict(enable=True)
