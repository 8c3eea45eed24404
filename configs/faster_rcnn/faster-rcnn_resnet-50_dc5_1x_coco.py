# Faster R-CNN (arXiv 1506.01497) on stage 5 of ResNet-50 (arXiv 1512.03385),
# dilated to stride 16 (DC5, arXiv 1703.06211), with the ImageNet weights of
# torchvision; no FPN. Not trained.
# Backbone: 23.51 M parameters, 133 GMACs at 800 x 1344; detector: 165.6 M parameters.
#   mmdet-backbones train configs/faster_rcnn/faster-rcnn_resnet-50_dc5_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ResNet',
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    # 2048 channels at stride 16, as in the base.
    rpn_head=dict(in_channels=2048))

auto_scale_lr = dict(enable=True)
