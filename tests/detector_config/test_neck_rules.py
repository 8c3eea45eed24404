"""The table of what necks expect, against the necks themselves."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_backbones.detector_config import neck_rules
from mmdet_backbones.detector_config.neck_rules import NECK_RULES, NeckRule, rule_of
from mmdet_backbones.shapes.build import build_weightless

SIZE = (256, 320)
NECKS = {
    'FPN': ('retinanet/retinanet_r50_fpn_1x_coco.py', (4, 8, 16, 32)),
    'PAFPN': ('pafpn/faster-rcnn_r50_pafpn_1x_coco.py', (4, 8, 16, 32)),
    'NASFPN': ('nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py', (4, 8, 16, 32)),
    'HRFPN': ('hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', (4, 8, 16, 32)),
    'HRFPN of stride 2': (
        'hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py',
        (4, 8, 16, 32),
    ),
    'FPG': ('fpg/faster-rcnn_r50_fpg-chn128_crop640-50e_coco.py', (4, 8, 16, 32)),
    'NASFCOS_FPN': (
        'nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py',
        (4, 8, 16, 32),
    ),
    'YOLOXPAFPN': ('yolox/yolox_tiny_8xb8-300e_coco.py', (8, 16, 32)),
    'CSPNeXtPAFPN': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (8, 16, 32)),
    'YOLOV3Neck': ('yolo/yolov3_d53_8xb8-320-273e_coco.py', (8, 16, 32)),
    'ChannelMapper': ('dino/dino-4scale_r50_8xb2-12e_coco.py', (8, 16, 32)),
    'DilatedEncoder': ('yolof/yolof_r50-c5_8xb8-1x_coco.py', (32,)),
    'CTResNetNeck': ('centernet/centernet_r18_8xb16-crop512-140e_coco.py', (32,)),
    'SSDNeck': ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', (16, 32)),
}


def neck_of(config: str) -> dict:
    path, _ = Config._get_cfg_path(f'mmdet::{config}', '')
    return Config.fromfile(path).model.neck


def maps(channels: list[int], strides: tuple[int, ...]) -> list[torch.Tensor]:
    return [
        torch.zeros(1, c, SIZE[0] // s, SIZE[1] // s)
        for c, s in zip(channels, strides, strict=True)
    ]


def test_every_neck_of_mmdet_has_a_rule():
    from mmdet.models import necks

    assert set(necks.__all__) <= set(NECK_RULES)
    assert len(necks.__all__) >= 19


@pytest.mark.parametrize('name', NECKS)
def test_a_rule_says_what_its_neck_does(name):
    config, strides = NECKS[name]
    neck = neck_of(config)
    rule = rule_of(neck)
    with DefaultScope.overwrite_default_scope('mmdet'):
        net = build_weightless(neck)
    channels = rule.channels(neck)
    with torch.no_grad(), torch.device('meta'):
        outputs = net(maps(channels, strides))
    made = [SIZE[0] / o.shape[2] for o in outputs]
    if name == 'YOLOV3Neck':
        made = made[::-1]
    told = rule.outputs(neck, strides)
    # The last maps of SSD are smaller than a cell of their stride.
    whole = [stride for stride in told if stride <= 128]
    assert len(made) == len(told)
    assert made[: len(whole)] == whole
    assert rule.settings(neck, channels)['in_channels'] in (
        neck.in_channels,
        list(neck.in_channels) if not isinstance(neck.in_channels, int) else None,
    )


def test_the_neck_of_yolov3_reads_deep_to_shallow():
    neck = neck_of(NECKS['YOLOV3Neck'][0])
    assert neck.in_channels == [1024, 512, 256]
    settings = rule_of(neck).settings(neck, (40, 112, 960))
    assert settings == {'in_channels': [960, 112, 40]}
    fpn = neck_of(NECKS['FPN'][0])
    assert rule_of(fpn).settings(fpn, (40, 112, 960))['in_channels'] == [40, 112, 960]


def test_the_neck_of_ssd_repeats_its_channels():
    neck = neck_of(NECKS['SSDNeck'][0])
    assert rule_of(neck).settings(neck, (40, 80)) == {
        'in_channels': [40, 80],
        'out_channels': [40, 80, 512, 256, 256, 128],
    }


def test_a_chain_of_necks_passes_its_strides_on():
    path, _ = Config._get_cfg_path(
        'mmdet::libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py', ''
    )
    model = Config.fromfile(path).model
    place, reader, _ = neck_rules.reader_of(model)
    assert (place, reader.type) == (('neck', 0), 'FPN')
    found = neck_rules.output_strides(model, (4, 8, 16, 32))
    assert found == (8, 16, 32, 64, 128)


def test_detectors_without_a_neck():
    c4, _ = Config._get_cfg_path(
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py', ''
    )
    place, reader, rule = neck_rules.reader_of(Config.fromfile(c4).model)
    assert place == ('rpn_head',)
    assert rule.channels(reader) == [1024]


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (dict(type='X', neck=dict(type='MyNeck')), r"'MyNeck'.*FPN, PAFPN.*register"),
        (dict(type='X', neck=dict(type='RFP')), 'DetectoRS_ResNet'),
        (dict(type='CornerNet'), 'hourglass'),
        (dict(type='X', bbox_head=dict(type='Y')), 'has no neck'),
    ],
)
def test_what_takes_no_backbone_says_why(model, message):
    with pytest.raises(ValueError, match=message):
        neck_rules.reader_of(model)


def test_a_rule_of_your_own(monkeypatch):
    monkeypatch.setattr(neck_rules, 'NECK_RULES', dict(NECK_RULES))
    neck_rules.register_neck_rule('MyNeck', NeckRule((8, 16), lambda part, s: s))
    model = dict(type='X', neck=dict(type='my_package.MyNeck', in_channels=[1, 2]))
    assert neck_rules.output_strides(model, (8, 16)) == (8, 16)
    assert neck_rules.reader_of(model)[2].channels(model['neck']) == [1, 2]
    with pytest.raises(ValueError, match='already'):
        neck_rules.register_neck_rule('FPN', NeckRule((8,), lambda part, s: s))
