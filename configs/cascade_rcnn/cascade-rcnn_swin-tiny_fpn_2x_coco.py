# Cascade R-CNN (arXiv 1906.09756) on Swin-T (arXiv 2103.14030), for 24 epochs. Not
# trained.
# Backbone: 27.52 M parameters, 99.1 GMACs at 800 x 1344; detector: 72.8 M parameters.
#   mmdet-backbones train configs/cascade_rcnn/cascade-rcnn_swin-tiny_fpn_2x_coco.py
_base_ = './cascade-rcnn_swin-tiny_fpn_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=24,
        by_epoch=True,
        milestones=[16, 22],
        gamma=0.1),
]
