"""Necks: shapes, parameters, mistakes, and whole detectors of mmdet around them."""

import math

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from torch import nn


def build(name: str, **arguments) -> nn.Module:
    return MODELS.build(dict(type=f'mmdet_backbones.{name}', **arguments))


def test_pyramid_has_the_shapes_and_strides_it_declares():
    neck = build('SimpleFeaturePyramid', in_channels=32, out_channels=24)
    outputs = neck((torch.rand(2, 32, 6, 10),))
    assert isinstance(outputs, tuple)
    assert neck.out_strides == (4, 8, 16, 32, 64)
    shapes = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    assert [tuple(x.shape) for x in outputs] == [(2, 24, h, w) for h, w in shapes]


def test_pyramid_has_the_layers_of_the_paper():
    channels, out = 32, 24
    neck = build('SimpleFeaturePyramid', in_channels=channels, out_channels=out)
    # Appendix A.1: kernel 2 stride 2 with bias, layer norm, then per scale a 1x1 and a
    # 3x3 convolution without bias, each with layer norm.
    up4 = (4 * 32 * 16 + 16) + 2 * 16 + (4 * 16 * 8 + 8)
    up2 = 4 * 32 * 16 + 16
    after = [
        width * out + 2 * out + 9 * out * out + 2 * out for width in (8, 16, 32, 32)
    ]
    assert sum(p.numel() for p in neck.parameters()) == up4 + up2 + sum(after)


def test_pyramid_keeps_the_names_of_mmdets_vitdet_project():
    names = set(dict(build('SimpleFeaturePyramid', in_channels=16).named_parameters()))
    expected = {f'fpn1.{i}.{leaf}' for i in (0, 1, 3) for leaf in ('weight', 'bias')}
    expected |= {'fpn2.0.weight', 'fpn2.0.bias'}
    for part in ('lateral_convs', 'fpn_convs'):
        for i in range(4):
            expected |= {f'{part}.{i}.conv.weight', f'{part}.{i}.norm_layer.weight'}
            expected.add(f'{part}.{i}.norm_layer.bias')
    assert names == expected


def test_every_parameter_of_the_pyramid_gets_a_gradient():
    neck = build('SimpleFeaturePyramid', in_channels=32, out_channels=24)
    outputs = neck((torch.rand(2, 32, 6, 10),))
    sum((output * torch.rand_like(output)).sum() for output in outputs[:4]).backward()
    assert [n for n, p in neck.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_layer_norm_normalises_each_pixel():
    neck = build('SimpleFeaturePyramid', in_channels=32, out_channels=64)
    for output in neck((torch.rand(1, 32, 4, 6),)):
        torch.testing.assert_close(output.mean(1), torch.zeros_like(output[:, 0]),
                                   atol=1e-5, rtol=0)  # fmt: skip
        assert torch.allclose(output.var(1, correction=0), torch.ones(1), atol=1e-3)


def test_scales_and_normalisation_can_be_chosen():
    neck = build(
        'SimpleFeaturePyramid', in_channels=[32], out_channels=16, num_outs=3,
        scale_factors=(2, 1, 0.5), norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'),
    )  # fmt: skip
    assert neck.out_strides == (8, 16, 32)
    assert [tuple(x.shape[2:]) for x in neck((torch.rand(1, 32, 6, 10),))] == [
        (12, 20), (6, 10), (3, 5)
    ]  # fmt: skip
    assert sum(isinstance(m, nn.BatchNorm2d) for m in neck.modules()) == 6
    assert not any(isinstance(m, nn.LayerNorm) for m in neck.modules())
    # Every scale is built once, the one for 4 not at all.
    assert not any(name.startswith('fpn1') for name, _ in neck.named_parameters())


def test_patches_of_14_pixels_give_fractional_strides():
    neck = build('SimpleFeaturePyramid', in_channels=32, in_stride=14)
    assert neck.out_strides == (3.5, 7, 14, 28, 56)


def test_the_last_row_of_an_odd_map_is_kept():
    neck = build('SimpleFeaturePyramid', in_channels=32)
    outputs = neck((torch.rand(1, 32, 7, 1),))
    assert [tuple(x.shape[2:]) for x in outputs[3:]] == [(4, 1), (2, 1)]


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        ([torch.rand(1, 32, 4, 4)] * 12, r'got 12: write out_indices=\(11,\)'),
        ([], 'got 0'),
        (torch.rand(1, 32, 4, 4), 'a bare tensor'),
        ([torch.rand(1, 48, 4, 4)], r'neck=dict\(in_channels=48\)'),
    ],
)
def test_the_pyramid_takes_one_level(inputs, message):
    with pytest.raises(ValueError, match=message):
        build('SimpleFeaturePyramid', in_channels=32)(inputs)


def test_all_mistakes_in_a_pyramid_are_told_at_once():
    with pytest.raises(ValueError, match='multiple of 4') as error:
        build('SimpleFeaturePyramid', in_channels=30, out_channels=0, num_outs=2,
              in_stride=0)  # fmt: skip
    for words in ('out_channels must', 'num_outs must', 'in_stride must'):
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r'one level, got \[192, 384\]'):
        build('SimpleFeaturePyramid', in_channels=[192, 384])
    for scales in ((1, 2), (8, 4), (), (2, 2)):
        with pytest.raises(ValueError, match='scale_factors must be descending'):
            build('SimpleFeaturePyramid', in_channels=32, scale_factors=scales)


def test_single_level_passes_a_level_on():
    neck = build('SingleLevel', in_channels=[16, 32])
    levels = torch.rand(1, 16, 8, 8), torch.rand(1, 32, 4, 4)
    (output,) = neck(levels)
    assert output is levels[1]
    assert list(neck.parameters()) == []
    assert neck.out_channels == 32


def test_single_level_projects_the_level_it_is_told():
    neck = build('SingleLevel', in_channels=[16, 32], out_channels=8, index=0,
                 norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))  # fmt: skip
    levels = torch.rand(2, 16, 8, 8), torch.rand(2, 32, 4, 4)
    (output,) = neck(levels)
    assert output.shape == (2, 8, 8, 8)
    assert output.min() == 0
    assert sum(p.numel() for p in neck.parameters()) == 16 * 8 + 2 * 8
    (output * torch.rand_like(output)).sum().backward()
    assert all(p.grad is not None for p in neck.parameters())
    # Without normalisation the convolution has a bias, without activation a sign.
    plain = build('SingleLevel', in_channels=16, out_channels=8)
    assert sum(p.numel() for p in plain.parameters()) == 16 * 8 + 8
    assert plain(levels[:1])[0].min() < 0


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        ([torch.rand(1, 16, 4, 4)], r'levels of \[16\] channels'),
        ([torch.rand(1, 16, 4, 4)] * 2, r'in_channels=\[16, 16\]'),
        (torch.rand(1, 16, 4, 4), 'a bare tensor'),
    ],
)
def test_single_level_takes_the_levels_it_names(inputs, message):
    with pytest.raises(ValueError, match=message):
        build('SingleLevel', in_channels=[16, 32])(inputs)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(in_channels=[]), 'in_channels must be positive integers'),
        (dict(in_channels=[16, 0]), 'in_channels must be positive integers'),
        (dict(in_channels=[16, 32], index=2), 'from -2 to 1 for 2 levels, got 2'),
        (dict(in_channels=16, out_channels=0), 'out_channels must be'),
        (dict(in_channels=16, norm_cfg=dict(type='BN')), 'norm_cfg has no effect'),
        (dict(in_channels=16, act_cfg=dict(type='ReLU')), 'act_cfg has no effect'),
    ],
)
def test_mistakes_in_a_single_level(arguments, message):
    with pytest.raises(ValueError, match=message):
        build('SingleLevel', **arguments)


@pytest.mark.parametrize('name', ['SimpleFeaturePyramid', 'SingleLevel'])
def test_an_unknown_argument_is_an_error(name):
    with pytest.raises(TypeError, match='num_out'):
        build(name, in_channels=32, num_out=5)


def faster_rcnn(base: str, backbone: dict, neck: dict) -> ConfigDict:
    path, _ = Config._get_cfg_path(f'mmdet::{base}', '')
    model = Config.fromfile(path).model
    model.backbone, model.neck = backbone, neck
    model.roi_head.bbox_head.fc_out_channels = 16
    return model


def run_detector(model: ConfigDict) -> nn.Module:
    register_all_modules()
    detector = MODELS.build(model)
    detector.init_weights()
    batch = demo_mm_inputs(1, [[3, 96, 160]], num_classes=80)
    data = detector.data_preprocessor(batch, True)
    loss, _ = detector.parse_losses(detector.train()(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in detector.neck.named_parameters() if p.grad is None] == []
    detector.eval()
    with torch.no_grad():
        (result,) = detector(**data, mode='predict')
    assert result.pred_instances.bboxes.shape[1] == 4
    return detector


@pytest.mark.parametrize(
    ('name', 'channels', 'patch'),
    [
        ('vit_tiny_patch16_224', 192, 16),
        pytest.param('vit_small_patch14_dinov2', 384, 14, marks=pytest.mark.slow),
    ],
)
def test_faster_rcnn_on_a_plain_vit(name, channels, patch):
    neck = dict(
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=channels,
        in_stride=patch,
    )
    strides = MODELS.build(neck).out_strides
    model = faster_rcnn(
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        dict(type='mmdet_backbones.TIMMBackbone', model_name=name, out_indices=(11,)),
        neck,
    )
    model.rpn_head.anchor_generator.strides = strides
    model.roi_head.bbox_roi_extractor.featmap_strides = strides[:4]
    detector = run_detector(model)
    features = detector.extract_feat(torch.rand(1, 3, 12 * patch, 16 * patch))
    for feature, stride in zip(features, strides, strict=True):
        rows, columns = (math.ceil(n * patch / stride) for n in (12, 16))
        assert feature.shape == (1, 256, rows, columns)


def test_faster_rcnn_without_a_pyramid():
    model = faster_rcnn(
        '_base_/models/faster-rcnn_r50-caffe-dc5.py',
        dict(
            type='mmdet_backbones.TIMMBackbone',
            model_name='resnet18',
            out_strides=(8, 16),
        ),
        dict(
            type='mmdet_backbones.SingleLevel', in_channels=[128, 256], out_channels=64
        ),
    )
    model.rpn_head.update(in_channels=64, feat_channels=64)
    model.roi_head.bbox_roi_extractor.out_channels = 64
    model.roi_head.bbox_head.in_channels = 64
    detector = run_detector(model)
    unused = [n for n, p in detector.backbone.named_parameters() if p.grad is None]
    assert unused == []
