# RT-DETR (arXiv 2304.08069) on ResNet-50-D (arXiv 1812.01187), the backbone of its
# authors, with timm's ImageNet weights and frozen batch normalisation. Not trained.
# Backbone: 23.47 M parameters, 35.3 GMACs at 640 x 640; detector: 42.9 M parameters.
#   mmdet-backbones train configs/rtdetr/rtdetr_resnet-50-d_8xb2-72e_coco.py
_base_ = '../_base_/detectors/rtdetr_640_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        type='mmdet_backbones.ResNet',
        depth=50,
        deep_stem=True,
        avg_down=True,
        out_strides=(8, 16, 32),
        frozen_stages=0,
        norm_cfg=dict(type='mmdet_backbones.FrozenBN'),
        init_cfg=dict(type='Pretrained', checkpoint='timm://resnet50d')),
    neck=dict(in_channels=[512, 1024, 2048]))
