# YOLOX (arXiv 2107.08430) on EfficientNet-Lite0 with ImageNet weights, trained on tree
# crowns in aerial photographs. `make demo` runs it; on two CPU cores it takes minutes.
#   python tools/demo/prepare_demo.py
#   mmdet-backbones train configs/yolox/yolox_efficientnet-lite0_trees.py
_base_ = [
    'mmdet::_base_/default_runtime.py',
    '../_base_/models/yolox_tiny.py',
    '../_base_/datasets/trees_detection.py',
]
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    # What the ImageNet weights were trained with, in place of YOLOX's raw 0..255 BGR.
    data_preprocessor=dict(
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        bgr_to_rgb=True),
    backbone=dict(
        type='mmdet_backbones.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        out_strides=(8, 16, 32),
        frozen_stages=1,
        # True, as usual, left the deepest level the same everywhere at this rate.
        norm_eval=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='data/weights/efficientnet-lite0.pth')),
    neck=dict(in_channels=[40, 112, 320]),
    bbox_head=dict(num_classes=1),
    test_cfg=dict(nms=dict(iou_threshold=0.5)))

# From here on as `mmdet-backbones swap` writes it for 112 images and 12 epochs.
max_epochs = 12
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', weight_decay=0.05, lr=1e-3),
    clip_grad=dict(max_norm=10.0, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        bypass_duplicate=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=17),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=6,
        end=max_epochs,
        T_max=6,
        by_epoch=True,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=5),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=1,
        save_best='coco/bbox_mAP_50',
        rule='greater'))
auto_scale_lr = dict(enable=True, base_batch_size=4, rule='sqrt')
custom_hooks = [
    dict(
        type='EMAHook', update_buffers=False, priority=49,
        ema_type='ExponentialMovingAverage', momentum=0.024),
    dict(type='mmdet_backbones.ChannelsLastHook'),
]
randomness = dict(seed=0)
