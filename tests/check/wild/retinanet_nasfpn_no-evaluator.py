# Planted: validation val_evaluator
_base_ = 'mmdet::nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py'

model = dict(bbox_head=dict(num_classes=3))

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

val_evaluator = None
auto_scale_lr = dict(enable=True, base_batch_size=64)
