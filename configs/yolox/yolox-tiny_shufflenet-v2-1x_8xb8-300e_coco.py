# YOLOX-tiny (arXiv 2107.08430) on ShuffleNetV2 1.0x (arXiv 1807.11164) with the
# ImageNet weights of mmpretrain. Not trained.
# Backbone: 0.78 M parameters, 0.416 GMACs at 416 x 416; detector: 4.2 M parameters.
#   mmdet-backbones train configs/yolox/yolox-tiny_shufflenet-v2-1x_8xb8-300e_coco.py
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-5bf4721e.pth'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ShuffleNetV2',
        widen_factor=1.0,
        out_strides=(8, 16, 32),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[116, 232, 464]))

auto_scale_lr = dict(enable=True)
