# Cascade R-CNN (arXiv 1906.09756) on Res2Net-50 26w-6s (arXiv 1904.01169), for 24
# epochs. Not trained.
# Backbone: 35.00 M parameters, 135 GMACs at 800 x 1344; detector: 80.9 M parameters.
#   mmdet-backbones train \
#     configs/cascade_rcnn/cascade-rcnn_res2net-50-26w-6s_fpn_2x_coco.py
_base_ = './cascade-rcnn_res2net-50-26w-6s_fpn_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=24,
        by_epoch=True,
        milestones=[16, 22],
        gamma=0.1),
]
