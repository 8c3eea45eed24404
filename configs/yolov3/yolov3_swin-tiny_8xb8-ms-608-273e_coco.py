# YOLOv3 (arXiv 1804.02767) on Swin-T (arXiv 2103.14030) with the ImageNet weights of
# mmpretrain. The neck lists its channels deep to shallow. Not trained.
# Backbone: 27.52 M parameters, 34.8 GMACs at 608 x 608; detector: 48.7 M parameters.
#   mmdet-backbones train configs/yolov3/yolov3_swin-tiny_8xb8-ms-608-273e_coco.py
_base_ = '../_base_/detectors/yolov3_608_imagenet.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.SwinTransformer',
        arch='tiny',
        out_strides=(8, 16, 32),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[768, 384, 192]))

# For the batch of 64 images that the base's 8 GPUs x 8 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    constructor='mmdet_backbones.LayerDecayConstructor',
    paramwise_cfg=dict(
        decay_rate=0.95,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0, norm_type=2))
auto_scale_lr = dict(enable=True, rule='sqrt')
