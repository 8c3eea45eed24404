# Planted: schedule param_scheduler
_base_ = 'mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))

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

train_cfg = dict(max_epochs=12)
auto_scale_lr = dict(enable=True, base_batch_size=16)
