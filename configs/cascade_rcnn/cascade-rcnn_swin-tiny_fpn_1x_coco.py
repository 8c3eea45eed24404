# Cascade R-CNN (arXiv 1906.09756) on Swin-T (arXiv 2103.14030) with the ImageNet
# weights of mmpretrain. Not trained.
# Backbone: 27.52 M parameters, 99.1 GMACs at 800 x 1344; detector: 72.8 M parameters.
#   mmdet-backbones train configs/cascade_rcnn/cascade-rcnn_swin-tiny_fpn_1x_coco.py
_base_ = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.SwinTransformer',
        arch='tiny',
        out_strides=(4, 8, 16, 32),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768]))

# For the batch of 16 images that the base's 8 GPUs x 2 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='mmdet_backbones.LayerDecayConstructor',
    paramwise_cfg=dict(
        decay_rate=0.95,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1),
]
auto_scale_lr = dict(enable=True, rule='sqrt')
