# Faster R-CNN (arXiv 1506.01497) with the simple feature pyramid of ViTDet (arXiv
# 2203.16527) on ViT-S/16 (arXiv 2010.11929), with the ImageNet weights of timm (AugReg,
# arXiv 2106.10270). Not trained.
# Backbone: 21.66 M parameters, 253 GMACs at 800 x 1344; detector: 39.9 M parameters.
#   mmdet-backbones train \
#     configs/faster_rcnn/faster-rcnn_vit-small-patch16_sfp_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='vit_small_patch16_224',
        out_strides=(16,),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://vit_small_patch16_224')),
    neck=dict(
        _delete_=True,
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=384,
        out_channels=256,
        num_outs=5))

# For the batch of 16 images that the base's 8 GPUs x 2 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.1),
    constructor='mmdet_backbones.LayerDecayConstructor',
    paramwise_cfg=dict(
        decay_rate=0.7,
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
