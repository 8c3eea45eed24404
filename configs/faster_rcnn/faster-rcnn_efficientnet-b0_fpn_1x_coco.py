# Faster R-CNN (arXiv 1506.01497) with FPN (arXiv 1612.03144) on EfficientNet-B0 (arXiv
# 1905.11946) with the ImageNet weights of torchvision. Not trained.
# Backbone: 4.01 M parameters, 8.23 GMACs at 800 x 1344; detector: 21.6 M parameters.
#   mmdet-backbones train configs/faster_rcnn/faster-rcnn_efficientnet-b0_fpn_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TorchvisionBackbone',
        model_name='efficientnet_b0',
        out_strides=(4, 8, 16, 32),
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://efficientnet_b0')),
    neck=dict(in_channels=[24, 40, 112, 1280]))

# For the batch of 16 images that the base's 8 GPUs x 2 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2))
auto_scale_lr = dict(enable=True, rule='sqrt')
