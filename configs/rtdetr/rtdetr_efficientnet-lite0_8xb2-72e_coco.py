# RT-DETR (arXiv 2304.08069) on timm's EfficientNet-Lite0 (arXiv 1905.11946) with its
# ImageNet weights. Not trained.
# Backbone: 2.96 M parameters, 2.97 GMACs at 640 x 640; detector: 21.6 M parameters.
#   mmdet-backbones train configs/rtdetr/rtdetr_efficientnet-lite0_8xb2-72e_coco.py
_base_ = '../_base_/detectors/rtdetr_640_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], bgr_to_rgb=True),
    backbone=dict(
        type='mmdet_backbones.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        out_strides=(8, 16, 32),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', checkpoint='timm://tf_efficientnet_lite0')),
    neck=dict(in_channels=[40, 112, 320]))
