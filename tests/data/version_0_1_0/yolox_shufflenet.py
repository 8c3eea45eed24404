# mmpretrain/shufflenet-v2-1x in the detector of mmdet::yolox/yolox_s_8xb8-300e_coco.py,
# written by tools/swap_backbone.py; not trained. Train it:
#   python tools/train.py yolox_shufflenet.py
# Levels: 0 (116 channels, stride 8), 1 (232 channels, stride 16), 2 (464 channels,
# stride 32).
# Recipe (convolutional net): the base's SGD is kept (the base's own optimiser, chosen
# for a net of this kind).
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ShuffleNetV2',
        widen_factor=1.0,
        out_strides=(8, 16, 32),
        norm_eval=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-5bf4721e.pth',
        ),
    ),
    neck=dict(in_channels=[116, 232, 464]),
)
auto_scale_lr = dict(enable=True)
