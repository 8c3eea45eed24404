# Planted: schedule optim_wrapper.optimizer.lr
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TIMMBackbone',
        model_name='vit_tiny_patch16_224',
        out_strides=(16,),
        init_cfg=None,
    ),
    neck=dict(
        _delete_=True, type='mmdet_backbones.SimpleFeaturePyramid', in_channels=192
    ),
    roi_head=dict(bbox_head=dict(num_classes=3)),
)

data_root = 'data/leaves/'
metainfo = dict(classes=('leaf', 'stem', 'flower'))
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=60),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22]),
]
train_cfg = dict(max_epochs=24, val_interval=2)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0, weight_decay=0.05),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
