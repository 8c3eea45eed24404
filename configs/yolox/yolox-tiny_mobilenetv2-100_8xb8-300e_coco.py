# YOLOX-tiny (arXiv 2107.08430) on MobileNetV2 (arXiv 1801.04381) with the ImageNet
# weights of timm, which were trained with strong augmentation: AdamW. Not trained.
# Backbone: 1.81 M parameters, 0.964 GMACs at 416 x 416; detector: 3.5 M parameters.
#   mmdet-backbones train configs/yolox/yolox-tiny_mobilenetv2-100_8xb8-300e_coco.py
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='mobilenetv2_100',
        out_strides=(8, 16, 32),
        init_cfg=dict(type='Pretrained', checkpoint='timm://mobilenetv2_100')),
    neck=dict(in_channels=[32, 96, 320]))

# For the batch of 64 images that the base's 8 GPUs x 8 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0))
param_scheduler = [
    dict(
        type='mmdet.QuadraticWarmupLR',
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=2e-5,
        begin=5,
        T_max=285,
        end=285,
        by_epoch=True,
        convert_to_iter_based=True),
    dict(type='ConstantLR', by_epoch=True, factor=1, begin=285, end=300),
]
auto_scale_lr = dict(enable=True, rule='sqrt')
