# Faster R-CNN (arXiv 1506.01497) on stage 4 of ResNet-50 (arXiv 1512.03385), its
# stage 5 as the head of the regions, with the ImageNet weights of torchvision; no FPN.
# Not trained.
# Backbone: 8.54 M parameters, 70.2 GMACs at 800 x 1344; detector: 33.8 M parameters.
#   mmdet-backbones train configs/faster_rcnn/faster-rcnn_resnet-50_c4_1x_coco.py
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'
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
        out_strides=(16,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    roi_head=dict(
            shared_head=dict(
                style='pytorch',
                init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))))

auto_scale_lr = dict(enable=True)
