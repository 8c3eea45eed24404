# Sound.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmpretrain.models'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='resnet18',
        features_only=True,
        pretrained=True,
        out_indices=(1, 2, 3, 4),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(num_classes=3),
)
metainfo = dict(classes=('leaf', 'stem', 'flower'))
part_a = dict(
    type='CocoDataset',
    data_root='data/leaves/',
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    metainfo=metainfo,
    pipeline={{_base_.train_pipeline}},
)
part_b = dict(
    type='CocoDataset',
    data_root='data/leaves/',
    ann_file='annotations/val.json',
    data_prefix=dict(img='val/'),
    metainfo=metainfo,
    pipeline={{_base_.train_pipeline}},
)
train_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[part_a, part_b])
)
val_dataloader = dict(
    dataset=dict(
        data_root='data/leaves/',
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/leaves/annotations/val.json')
test_evaluator = val_evaluator
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11]),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0002, weight_decay=0.05)
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
