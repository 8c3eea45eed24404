# Faster R-CNN (arXiv 1506.01497) on the last map of stride 16 of VGG-16 with batch
# normalisation (arXiv 1409.1556) and the ImageNet weights of torchvision; no FPN. As in
# the paper conv1 and conv2 are frozen. Not trained.
# Backbone: 14.72 M parameters, 329 GMACs at 800 x 1344; detector: 44.3 M parameters.
#   mmdet-backbones train configs/faster_rcnn/faster-rcnn_vgg16-bn_c5_1x_coco.py
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
        model_name='vgg16_bn',
        # The ReLU of conv5_3, before the last pooling.
        return_nodes=['features.42'],
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16_bn')),
    rpn_head=dict(in_channels=512, feat_channels=512),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=512),
        bbox_head=dict(in_channels=512)))

auto_scale_lr = dict(enable=True)
