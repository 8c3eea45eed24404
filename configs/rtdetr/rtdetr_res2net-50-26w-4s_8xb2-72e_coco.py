# RT-DETR (arXiv 2304.08069) on Res2Net-50 26w-4s (arXiv 1904.01169) with the authors'
# ImageNet weights as timm has them, and frozen batch normalisation. Not trained.
# Backbone: 23.59 M parameters, 34.7 GMACs at 640 x 640; detector: 43.0 M parameters.
#   mmdet-backbones train configs/rtdetr/rtdetr_res2net-50-26w-4s_8xb2-72e_coco.py
_base_ = '../_base_/detectors/rtdetr_640_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        type='mmdet_backbones.Res2Net',
        depth=50,
        scales=4,
        base_width=26,
        out_strides=(8, 16, 32),
        frozen_stages=0,
        norm_cfg=dict(type='mmdet_backbones.FrozenBN'),
        init_cfg=dict(type='Pretrained', checkpoint='timm://res2net50_26w_4s')),
    neck=dict(in_channels=[512, 1024, 2048]))
