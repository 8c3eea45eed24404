# YOLOv3 (arXiv 1804.02767) on MobileNetV3-large (arXiv 1905.02244) with the ImageNet
# weights of mmpretrain. The neck lists its channels deep to shallow. Not trained.
# Backbone: 2.82 M parameters, 0.709 GMACs at 416 x 416; detector: 4.3 M parameters.
#   mmdet-backbones train \
#     configs/yolov3/yolov3_mobilenet-v3-large_8xb24-ms-416-300e_coco.py
_base_ = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/mobilenet_v3/mobilenet-v3-large_8xb128_in1k_20221114-0ed9ed9a.pth'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.MobileNetV3',
        arch='large',
        out_strides=(8, 16, 32),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[160, 112, 40]))

# For the batch of 192 images that the base's 8 GPUs x 24 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=7e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2))
# No part of the backbone is without a gradient.
find_unused_parameters = False
auto_scale_lr = dict(enable=True, rule='sqrt')
