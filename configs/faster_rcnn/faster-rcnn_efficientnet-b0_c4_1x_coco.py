# Faster R-CNN (arXiv 1506.01497) on the map of stride 16 of EfficientNet-B0 (arXiv
# 1905.11946), projected to 512 channels, with the ImageNet weights of torchvision; no
# FPN. Not trained.
# Backbone: 0.85 M parameters, 5.21 GMACs at 800 x 1344; detector: 30.5 M parameters.
#   mmdet-backbones train configs/faster_rcnn/faster-rcnn_efficientnet-b0_c4_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.TorchvisionBackbone',
        model_name='efficientnet_b0',
        out_strides=(16,),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://efficientnet_b0')),
    neck=dict(
        type='mmdet_backbones.SingleLevel',
        in_channels=[112],
        out_channels=512,
        act_cfg=dict(type='ReLU')),
    rpn_head=dict(in_channels=512, feat_channels=512),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=512),
        bbox_head=dict(in_channels=512)))

# For the batch of 16 images that the base's 8 GPUs x 2 make.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2))
auto_scale_lr = dict(enable=True, rule='sqrt')
