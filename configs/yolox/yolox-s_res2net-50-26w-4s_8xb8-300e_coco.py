# YOLOX-s (arXiv 2107.08430) on Res2Net-50 26w-4s (arXiv 1904.01169) with the authors'
# ImageNet weights as timm has them. Not trained.
# Backbone: 23.65 M parameters, 34.7 GMACs at 640 x 640; detector: 71.2 M parameters.
#   mmdet-backbones train configs/yolox/yolox-s_res2net-50-26w-4s_8xb8-300e_coco.py
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
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
        scales=4,
        base_width=26,
        out_strides=(8, 16, 32),
        # YOLOX trains long enough, on large enough batches, for statistics of its own.
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='timm://res2net50_26w_4s')),
    neck=dict(in_channels=[512, 1024, 2048]))

auto_scale_lr = dict(enable=True)
