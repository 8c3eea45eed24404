# timm/vit_tiny_patch16_224 in the detector of
# mmdet::retinanet/retinanet_r50_fpn_1x_coco.py, written by tools/swap_backbone.py; not
# trained. Train it:
#   python tools/train.py retinanet_vit.py
# Levels: 11 (192 channels, stride 16).
# The one map of stride 16 becomes maps of the strides 8, 16, 32, 64, 128 in the simple
# feature pyramid of ViTDet (arXiv 2203.16527).
# Recipe (plain ViT): AdamW 5e-05 for the batch of 16, layer-wise decay 0.7 over 13
# groups, instead of SGD 0.01 (ViTDet, arXiv 2203.16527, app. A.2: AdamW, weight decay
# 0.1, layer-wise decay 0.7 (12 blocks), 0.8 (24), 0.9 (32), 1e-4 for a batch of 64).
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='vit_tiny_patch16_224',
        out_strides=(16,),
        init_cfg=dict(type='Pretrained', checkpoint='timm://vit_tiny_patch16_224'),
    ),
    neck=dict(
        _delete_=True,
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=192,
        out_channels=256,
        num_outs=5,
        scale_factors=(2, 1, 0.5),
        in_stride=16,
    ),
)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-05, weight_decay=0.1),
    constructor='mmdet_backbones.LayerDecayConstructor',
    paramwise_cfg=dict(
        decay_rate=0.7,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        bypass_duplicate=True,
    ),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
    ),
]
auto_scale_lr = dict(enable=True, rule='sqrt')
