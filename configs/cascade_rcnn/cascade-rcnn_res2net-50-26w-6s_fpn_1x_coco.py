# Cascade R-CNN (arXiv 1906.09756) on Res2Net-50 26w-6s (arXiv 1904.01169) with the
# authors' ImageNet weights as timm has them. Not trained.
# Backbone: 35.00 M parameters, 135 GMACs at 800 x 1344; detector: 80.9 M parameters.
#   mmdet-backbones train \
#     configs/cascade_rcnn/cascade-rcnn_res2net-50-26w-6s_fpn_1x_coco.py
_base_ = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.Res2Net',
        depth=50,
        scales=6,
        base_width=26,
        out_strides=(4, 8, 16, 32),
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://res2net50_26w_6s')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))

auto_scale_lr = dict(enable=True)
