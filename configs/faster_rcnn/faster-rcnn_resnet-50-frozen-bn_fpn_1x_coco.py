# Faster R-CNN (arXiv 1506.01497) with FPN (arXiv 1612.03144) on timm's ResNet-50 (arXiv
# 1512.03385) with frozen batch normalisation, stem and first stage, as in detectron2.
# The weights are torchvision's first ones, trained with SGD. Not trained.
# Backbone: 23.45 M parameters, 87.6 GMACs at 800 x 1344; detector: 41.7 M parameters.
#   mmdet-backbones train \
#     configs/faster_rcnn/faster-rcnn_resnet-50-frozen-bn_fpn_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='resnet50.tv_in1k',
        out_strides=(4, 8, 16, 32),
        frozen_stages=1,
        norm_layer='FrozenBN',
        init_cfg=dict(type='Pretrained', checkpoint='timm://resnet50.tv_in1k')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))

auto_scale_lr = dict(enable=True)
