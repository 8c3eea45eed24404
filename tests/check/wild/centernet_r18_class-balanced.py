# Sound.
_base_ = 'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py'

model = dict(bbox_head=dict(num_classes=3))
data_root = 'data/leaves/'
metainfo = dict(classes=('leaf', 'stem', 'flower'))
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=0.1,
        dataset=dict(
            type='CocoDataset',
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=metainfo,
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
        metainfo=metainfo,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=True, base_batch_size=128)
