# res2net50_26w_4s in the detector of mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py,
# written by tools/swap_backbone.py; not trained. Train it:
#   python tools/train.py faster-rcnn_res2net50.py
# Levels: 0 (256 channels, stride 4), 1 (512 channels, stride 8), 2 (1024 channels,
# stride 16), 3 (2048 channels, stride 32).
# There are no known weights of this net: training starts from RANDOM weights. If you
# have some, write init_cfg or swap again with --checkpoint.
# Recipe (convolutional net): the base's SGD is kept (the base's own optimiser, chosen
# for a net of this kind).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.Res2Net',
        depth=50,
        out_strides=(4, 8, 16, 32),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
auto_scale_lr = dict(enable=True)
