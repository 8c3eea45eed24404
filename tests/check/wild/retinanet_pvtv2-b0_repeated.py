# Sound.
_base_ = 'mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py'

model = dict(bbox_head=dict(num_classes=3))
data_root = 'data/leaves/'
classes = ('leaf', 'stem', 'flower')
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=10,
        dataset=dict(
            type='CocoDataset',
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline={{_base_.train_pipeline}},
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=classes),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='CosineAnnealingLR', begin=1, T_max=11, end=12, eta_min=1e-6),
]
auto_scale_lr = dict(enable=True, base_batch_size=16)
