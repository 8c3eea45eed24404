# YOLOv3 (arXiv 1804.02767) on Res2Net-50 26w-4s (arXiv 1904.01169) with the authors'
# ImageNet weights as timm has them. The neck lists its channels deep to shallow. Not
# trained.
# Backbone: 23.65 M parameters, 31.3 GMACs at 608 x 608; detector: 45.7 M parameters.
#   mmdet-backbones train \
#     configs/yolov3/yolov3_res2net-50-26w-4s_8xb8-ms-608-273e_coco.py
_base_ = '../_base_/detectors/yolov3_608_imagenet.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.Res2Net',
        depth=50,
        scales=4,
        base_width=26,
        out_strides=(8, 16, 32),
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://res2net50_26w_4s')),
    neck=dict(in_channels=[2048, 1024, 512]))

auto_scale_lr = dict(enable=True)
