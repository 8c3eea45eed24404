# YOLOX-s (arXiv 2107.08430) on ConvNeXt-T (arXiv 2201.03545) with the ImageNet weights
# of mmpretrain. Not trained.
# Backbone: 27.82 M parameters, 36.4 GMACs at 640 x 640; detector: 36.2 M parameters.
#   mmdet-backbones train configs/yolox/yolox-s_convnext-tiny_8xb8-300e_coco.py
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/convnext/convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ConvNeXt',
        arch='tiny',
        out_strides=(8, 16, 32),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 384, 768]))

# For the batch of 64 images that the base's 8 GPUs x 8 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    constructor='mmdet_backbones.LayerDecayConstructor',
    paramwise_cfg=dict(
        decay_rate=0.88,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0, norm_type=2))
param_scheduler = [
    dict(
        type='mmdet.QuadraticWarmupLR',
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=5,
        T_max=285,
        end=285,
        by_epoch=True,
        convert_to_iter_based=True),
    dict(type='ConstantLR', by_epoch=True, factor=1, begin=285, end=300),
]
auto_scale_lr = dict(enable=True, rule='sqrt')
