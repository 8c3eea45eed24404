# DINO (arXiv 2203.03605) on torchvision's ResNet-50 (arXiv 1512.03385) with its
# ImageNet weights and frozen batch normalisation. Not trained.
# Backbone: 23.45 M parameters, 87.6 GMACs at 800 x 1344; detector: 47.6 M parameters.
#   mmdet-backbones train configs/dino/dino-4scale_resnet-50_8xb2-12e_coco.py
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TorchvisionBackbone',
        model_name='resnet50',
        out_strides=(8, 16, 32),
        frozen_stages=1,
        norm_layer='FrozenBN',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[512, 1024, 2048]))

auto_scale_lr = dict(enable=True, rule='sqrt')
