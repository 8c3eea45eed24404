# YOLOX-s (arXiv 2107.08430) on EfficientNet-Lite0 (arXiv 1905.11946) with the ImageNet
# weights of timm. Not trained.
# Backbone: 2.96 M parameters, 2.97 GMACs at 640 x 640; detector: 5.6 M parameters.
#   mmdet-backbones train configs/yolox/yolox-s_efficientnet-lite0_8xb8-300e_coco.py
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        out_strides=(8, 16, 32),
        init_cfg=dict(type='Pretrained', checkpoint='timm://tf_efficientnet_lite0')),
    neck=dict(in_channels=[40, 112, 320]))

# For the batch of 64 images that the base's 8 GPUs x 8 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2))
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
