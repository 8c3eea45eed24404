# Sound.
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'

model = dict(bbox_head=dict(num_classes=3))

# Multi-image data sets hold the images inside.
data_root = 'data/leaves/'
metainfo = dict(classes=('leaf', 'stem', 'flower'))
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=metainfo,
        )
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
auto_scale_lr = dict(enable=True, base_batch_size=64)

load_from = 'https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_tiny_8x8_300e_coco/yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'

default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3, save_best='coco/bbox_mAP')
)
log_processor = dict(window_size=20)
