"""Configs with one mistake each, and two that are copied from blog to blog."""

import functools

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils

YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
SHUFFLENET = dict(_delete_=True, type='mmpretrain.ShuffleNetV2', widen_factor=0.5)
R18 = dict(
    _delete_=True,
    type='mmdet_backbones.TIMMBackbone',
    model_name='resnet18',
    out_strides=(4, 8, 16, 32),
    init_cfg=dict(type='Pretrained', checkpoint='timm://resnet18.tv_in1k'),
)
R18_FPN = dict(backbone=R18, neck=dict(in_channels=[64, 128, 256, 512]))
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
)


_load_once = functools.cache(config_utils.load)


def load(tmp_path, base, **settings):
    """A config that inherits from a base, as a user writes it."""
    path = tmp_path / 'config.py'
    lines = [f'_base_ = {base!r}', *(f'{k} = {v!r}' for k, v in settings.items())]
    path.write_text('\n'.join(lines))
    with pytest.MonkeyPatch.context() as patch:
        # mmengine reads a hundred of mmdet's metafiles for every base otherwise.
        patch.setattr(config_utils, 'load', _load_once)
        return Config.fromfile(path)


def merged(model, **parts):
    found = {**model}
    for key, value in parts.items():
        found[key] = {**found.get(key, {}), **value}
    return found


PLANTED = {
    'channels of another net': (
        RETINANET,
        merged(R18_FPN, neck=dict(in_channels=[256, 512, 1024, 2048])),
        'channels',
        'model.neck.in_channels = [64, 128, 256, 512]',
    ),
    'channels shallow to deep for YOLOv3': (
        YOLOV3,
        dict(neck=dict(in_channels=[32, 96, 320])),
        'channels',
        'model.neck.in_channels = [320, 96, 32]',
    ),
    'one level too many': (
        RETINANET,
        merged(R18_FPN, neck=dict(in_channels=[64, 128, 256])),
        'channels',
        'model.neck.in_channels = [64, 128, 256, 512]',
    ),
    'a stride twice': (
        YOLOX,
        dict(
            backbone=dict(SHUFFLENET, out_indices=(1, 2, 3)),
            neck=dict(in_channels=[96, 192, 1024]),
        ),
        'levels',
        'model.backbone.out_indices = (0, 1, 2)',
    ),
    "levels counted from the end by mmdet's class": (
        RETINANET,
        dict(backbone=dict(out_indices=(0, 1, 2, -1))),
        'levels',
        'model.backbone.out_indices = (0, 1, 2, 3)',
    ),
    'levels too shallow for the head': (
        YOLOX,
        dict(backbone=dict(R18, out_strides=(4, 8, 16)), neck=dict(
            in_channels=[64, 128, 256])),
        'levels',
        'model.backbone.out_strides = (8, 16, 32)',
    ),
    'strides of the head': (
        RETINANET,
        merged(R18_FPN, bbox_head=dict(
            anchor_generator=dict(strides=[4, 8, 16, 32, 64]))),
        'levels',
        'model.bbox_head.anchor_generator.strides = [8, 16, 32, 64, 128]',
    ),
    'arguments of the base': (
        RETINANET,
        dict(backbone=dict(type='mmdet_backbones.TIMMBackbone', model_name='resnet18')),
        'arguments',
        'model.backbone._delete_ = True',
    ),
    'a class that is not there': (
        RETINANET,
        dict(neck=dict(type='FNP')),
        'type',
        None,
    ),
    'a level that is not there': (
        RETINANET,
        merged(R18_FPN, backbone=dict(out_strides=(4, 8, 16, 64))),
        'backbone',
        None,
    ),
    'maps with channels last': (
        RETINANET,
        dict(backbone=dict(
            _delete_=True, type='mmpretrain.TIMMBackbone', features_only=True,
            model_name='swin_tiny_patch4_window7_224', img_size=(320, 416))),
        'channels last',
        "model.backbone.type = 'mmdet_backbones.TIMMBackbone'",
    ),
    'images of one size': (
        RETINANET,
        dict(backbone=dict(
            _delete_=True, type='mmpretrain.TIMMBackbone', features_only=True,
            model_name='swin_tiny_patch4_window7_224')),
        'image size',
        "model.backbone.type = 'mmdet_backbones.TIMMBackbone'",
    ),
    'no checkpoint there': (
        RETINANET,
        merged(R18_FPN, backbone=dict(
            init_cfg=dict(type='Pretrained', checkpoint='no/such.pth'))),
        'weights',
        None,
    ),
    'raw images for weights of ImageNet': (
        YOLOX,
        dict(backbone=dict(R18, out_strides=(8, 16, 32)),
             neck=dict(in_channels=[128, 256, 512])),
        'preprocessing',
        'model.data_preprocessor.mean = [123.675, 116.28, 103.53]',
    ),
    'blue first': (
        RETINANET,
        merged(R18_FPN, data_preprocessor=dict(bgr_to_rgb=False)),
        'preprocessing',
        'model.data_preprocessor.bgr_to_rgb = True',
    ),
    'classes of another data set': (
        RETINANET,
        merged(R18_FPN, bbox_head=dict(num_classes=20)),
        'classes',
        'model.bbox_head.num_classes = 80',
    ),
    'frozen and random': (
        RETINANET,
        merged(R18_FPN, backbone=dict(init_cfg=None, frozen_stages=1)),
        'frozen and random',
        'model.backbone.frozen_stages = -1',
    ),
    'statistics of nothing': (
        RETINANET,
        merged(R18_FPN, backbone=dict(init_cfg=None, norm_eval=True)),
        'frozen and random',
        'model.backbone.norm_eval = False',
    ),
    'frozen too late': (
        YOLOX,
        dict(
            backbone=dict(_delete_=True, type='mmpretrain.MobileNetV3', arch='small',
                          out_indices=(3, 8, 11), frozen_stages=2),
            neck=dict(in_channels=[24, 48, 96])),
        'frozen late',
        "model.backbone.type = 'mmdet_backbones.MobileNetV3'",
    ),
    'a tail without gradient': (
        YOLOX,
        dict(backbone=dict(SHUFFLENET, out_indices=(0, 1, 2)),
             neck=dict(in_channels=[48, 96, 192])),
        'no gradient',
        "model.backbone.type = 'mmdet_backbones.ShuffleNetV2'",
    ),
    'SGD for a ConvNeXt': (
        RETINANET,
        dict(
            backbone=dict(R18, model_name='convnext_atto', init_cfg=dict(
                type='Pretrained', checkpoint='timm://convnext_atto')),
            neck=dict(in_channels=[40, 80, 160, 320])),
        'optimiser',
        None,
    ),
    'sizes that the levels do not divide': (
        YOLOX,
        dict(
            data_preprocessor=dict(IMAGENET, pad_size_divisor=1, batch_augments=[dict(
                type='BatchSyncRandomResize', random_size_range=(320, 640),
                size_divisor=16, interval=10)]),
            backbone=dict(R18, out_strides=(8, 16, 32)),
            neck=dict(in_channels=[128, 256, 512])),
        'image size',
        'model.data_preprocessor.batch_augments.0.size_divisor = 32',
    ),
}  # fmt: skip
V1 = 'https://download.openmmlab.com/mmclassification/v0/shufflenet_v1/'
V1 += 'shufflenet_v1_batch1024_imagenet_20200804-5d6cec73.pth'
SWIN = 'https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
SWIN += 'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth'
# As they are copied from one blog to the next.
COPIED = {
    'YOLOX on a ShuffleNet': (
        YOLOX,
        dict(
            backbone=dict(
                _delete_=True,
                type='mmpretrain.ShuffleNetV2',
                out_indices=(1, 2, 3),
                widen_factor=1.0,
                init_cfg=dict(type='Pretrained', checkpoint=V1, prefix='backbone'),
            ),
            neck=dict(in_channels=[232, 464, 1024]),
        ),
        {'levels', 'weights', 'preprocessing'},
        ('mmdet_backbones.ShuffleNetV2', (8, 16, 32), [116, 232, 464]),
    ),
    'YOLOv3 on a Swin': (
        'mmdet::yolo/yolov3_d53_8xb8-ms-608-273e_coco.py',
        dict(
            backbone=dict(
                _delete_=True,
                type='mmpretrain.SwinTransformer',
                arch='tiny',
                out_indices=(0, 1, 2),
                init_cfg=dict(type='Pretrained', checkpoint=SWIN, prefix='backbone'),
            ),
            neck=dict(in_channels=[768, 384, 192]),
        ),
        {'levels', 'no gradient', 'preprocessing'},
        ('mmdet_backbones.SwinTransformer', (8, 16, 32), [768, 384, 192]),
    ),
}
