# Of a real training, which `make demo` ran on two CPU cores with
# configs/yolox/yolox_efficientnet-lite0_trees.py: as mmengine 0.10.7 dumped it, but for
# the formatting. scalars.json beside it is the log of that run, as it was written.
act_cfg = dict(type='Swish')
auto_scale_lr = dict(base_batch_size=4)
crop_size = (
    320,
    320,
)
custom_hooks = [
    dict(type='mmdet_backbones.ChannelsLastHook'),
    dict(
        ema_type='ExponentialMovingAverage',
        momentum=0.02,
        priority=49,
        type='EMAHook',
        update_buffers=True,
    ),
]
custom_imports = dict(
    allow_failed_imports=False,
    imports=[
        'mmdet_backbones',
    ],
)
data_root = 'data/trees/'
dataset_type = 'CocoDataset'
default_hooks = dict(
    checkpoint=dict(
        _scope_='mmdet',
        interval=1,
        max_keep_ckpts=1,
        rule='greater',
        save_best='coco/bbox_mAP_50',
        type='CheckpointHook',
    ),
    logger=dict(_scope_='mmdet', interval=5, type='LoggerHook'),
    param_scheduler=dict(_scope_='mmdet', type='ParamSchedulerHook'),
    sampler_seed=dict(_scope_='mmdet', type='DistSamplerSeedHook'),
    timer=dict(_scope_='mmdet', type='IterTimerHook'),
    visualization=dict(_scope_='mmdet', type='DetVisualizationHook'),
)
default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
)
launcher = 'none'
load_from = None
log_level = 'INFO'
log_processor = dict(
    _scope_='mmdet', by_epoch=True, type='LogProcessor', window_size=50
)
max_epochs = 12
metainfo = dict(
    classes=('tree',),
    palette=[
        (
            34,
            139,
            34,
        ),
    ],
)
model = dict(
    backbone=dict(
        frozen_stages=1,
        init_cfg=dict(
            checkpoint='data/weights/efficientnet-lite0.pth', type='Pretrained'
        ),
        model_name='tf_efficientnet_lite0',
        norm_eval=True,
        out_strides=(
            8,
            16,
            32,
        ),
        type='mmdet_backbones.TIMMBackbone',
    ),
    bbox_head=dict(
        act_cfg=dict(type='Swish'),
        feat_channels=96,
        in_channels=96,
        loss_bbox=dict(
            eps=1e-16, loss_weight=5.0, mode='square', reduction='sum', type='IoULoss'
        ),
        loss_cls=dict(
            loss_weight=1.0, reduction='sum', type='CrossEntropyLoss', use_sigmoid=True
        ),
        loss_l1=dict(loss_weight=1.0, reduction='sum', type='L1Loss'),
        loss_obj=dict(
            loss_weight=1.0, reduction='sum', type='CrossEntropyLoss', use_sigmoid=True
        ),
        norm_cfg=dict(eps=0.001, momentum=0.03, type='BN'),
        num_classes=1,
        stacked_convs=2,
        strides=(
            8,
            16,
            32,
        ),
        type='YOLOXHead',
        use_depthwise=False,
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            127.0,
            127.0,
            127.0,
        ],
        pad_size_divisor=32,
        std=[
            128.0,
            128.0,
            128.0,
        ],
        type='DetDataPreprocessor',
    ),
    neck=dict(
        act_cfg=dict(type='Swish'),
        in_channels=[
            40,
            112,
            320,
        ],
        norm_cfg=dict(eps=0.001, momentum=0.03, type='BN'),
        num_csp_blocks=1,
        out_channels=96,
        type='YOLOXPAFPN',
        upsample_cfg=dict(mode='nearest', scale_factor=2),
        use_depthwise=False,
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.5, type='nms'), score_thr=0.01),
    train_cfg=dict(assigner=dict(center_radius=2.5, type='SimOTAAssigner')),
    type='YOLOX',
)
norm_cfg = dict(eps=0.001, momentum=0.03, type='BN')
optim_wrapper = dict(
    clip_grad=dict(max_norm=10.0),
    optimizer=dict(lr=0.002, type='AdamW', weight_decay=0.05),
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        custom_keys=dict(backbone=dict(lr_mult=0.5)),
        norm_decay_mult=0.0,
    ),
    type='OptimWrapper',
)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=30, start_factor=0.05, type='LinearLR'),
    dict(
        T_max=12,
        begin=0,
        by_epoch=True,
        convert_to_iter_based=True,
        end=12,
        eta_min=1e-05,
        type='CosineAnnealingLR',
    ),
]
randomness = dict(seed=0)
resume = True
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        data_root='data/trees/',
        metainfo=dict(
            classes=('tree',),
            palette=[
                (
                    34,
                    139,
                    34,
                ),
            ],
        ),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    448,
                    448,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    drop_last=False,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = dict(ann_file='data/trees/val.json', metric='bbox', type='CocoMetric')
test_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(
        keep_ratio=True,
        scale=(
            448,
            448,
        ),
        type='Resize',
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
        type='PackDetInputs',
    ),
]
test_scale = (
    448,
    448,
)
train_cfg = dict(max_epochs=12, type='EpochBasedTrainLoop', val_interval=4)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        data_root='data/trees/',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        metainfo=dict(
            classes=('tree',),
            palette=[
                (
                    34,
                    139,
                    34,
                ),
            ],
        ),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                keep_ratio=True,
                ratio_range=(
                    0.8,
                    1.25,
                ),
                scale=(
                    448,
                    448,
                ),
                type='RandomResize',
            ),
            dict(
                allow_negative_crop=True,
                crop_size=(
                    320,
                    320,
                ),
                type='RandomCrop',
            ),
            dict(
                direction=[
                    'horizontal',
                    'vertical',
                    'diagonal',
                ],
                prob=[
                    0.25,
                    0.25,
                    0.25,
                ],
                type='RandomFlip',
            ),
            dict(
                contrast_range=(
                    0.7,
                    1.3,
                ),
                hue_delta=10,
                type='PhotoMetricDistortion',
            ),
            dict(
                pad_val=dict(
                    img=(
                        114.0,
                        114.0,
                        114.0,
                    )
                ),
                size=(
                    320,
                    320,
                ),
                type='Pad',
            ),
            dict(
                keep_empty=False,
                min_gt_bbox_wh=(
                    4,
                    4,
                ),
                type='FilterAnnotations',
            ),
            dict(type='PackDetInputs'),
        ],
        type='CocoDataset',
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=True, type='DefaultSampler'),
)
train_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        keep_ratio=True,
        ratio_range=(
            0.8,
            1.25,
        ),
        scale=(
            448,
            448,
        ),
        type='RandomResize',
    ),
    dict(
        allow_negative_crop=True,
        crop_size=(
            320,
            320,
        ),
        type='RandomCrop',
    ),
    dict(
        direction=[
            'horizontal',
            'vertical',
            'diagonal',
        ],
        prob=[
            0.25,
            0.25,
            0.25,
        ],
        type='RandomFlip',
    ),
    dict(
        contrast_range=(
            0.7,
            1.3,
        ),
        hue_delta=10,
        type='PhotoMetricDistortion',
    ),
    dict(
        pad_val=dict(
            img=(
                114.0,
                114.0,
                114.0,
            )
        ),
        size=(
            320,
            320,
        ),
        type='Pad',
    ),
    dict(
        keep_empty=False,
        min_gt_bbox_wh=(
            4,
            4,
        ),
        type='FilterAnnotations',
    ),
    dict(type='PackDetInputs'),
]
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        data_root='data/trees/',
        metainfo=dict(
            classes=('tree',),
            palette=[
                (
                    34,
                    139,
                    34,
                ),
            ],
        ),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    448,
                    448,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    drop_last=False,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
val_evaluator = dict(ann_file='data/trees/val.json', metric='bbox', type='CocoMetric')
vis_backends = [
    dict(_scope_='mmdet', type='LocalVisBackend'),
]
visualizer = dict(
    _scope_='mmdet',
    name='visualizer',
    type='DetLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ],
)
work_dir = 'work_dirs/demo'
