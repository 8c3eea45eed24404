"""ResNet reproduces torchvision, timm, mmdet and detectron2 on converted weights."""

import re

import pytest
import torch
from parity import TOLERANCE, convert, largest_difference, randomise

from mmdet_backbones.backbones.residual.resnet import VARIANTS, ResNet
from mmdet_backbones.weights import load_pretrained

TORCHVISION = (
    'resnet18',
    'resnet34',
    'resnet50',
    'resnet101',
    'resnet152',
    'resnext50_32x4d',
    'resnext101_64x4d',
    'wide_resnet50_2',
    'wide_resnet101_2',
)
TIMM = {
    'resnet50': 'resnet50',
    'resnet50d': 'resnet50_d',
    'resnet101d': 'resnet101_d',
    'resnext50_32x4d': 'resnext50_32x4d',
    'resnext101_32x4d': 'resnext101_32x4d',
}
DC5 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
SMALL = dict(base_channels=16)
MMDET = {
    'pytorch': ('ResNet', dict(depth=50), {}),
    'caffe': ('ResNet', dict(depth=50, style='caffe'), dict(stride_in_1x1=True)),
    'dc5': ('ResNet', dict(depth=50, **DC5, **SMALL), {}),
    'dc5-caffe': (
        'ResNet',
        dict(depth=50, style='caffe', **DC5, **SMALL),
        dict(stride_in_1x1=True),
    ),
    'dilated-18': ('ResNet', dict(depth=18, **DC5, **SMALL), {}),
    'v1d': (
        'ResNetV1d',
        dict(depth=50, **SMALL),
        dict(deep_stem=True, avg_down=True),
    ),
    'resnext': ('ResNeXt', dict(depth=50, groups=32, base_width=4), {}),
}


def only_by_default(names, *default):
    """Mark all other cases as slow."""
    return [
        pytest.param(name, marks=() if name in default else pytest.mark.slow)
        for name in names
    ]


def ours(**kwargs) -> ResNet:
    return ResNet(norm_eval=False, **kwargs)


@pytest.mark.parametrize('name', only_by_default(TORCHVISION, 'resnet18'))
def test_torchvision(name, tmp_path):
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    net = randomise(getattr(models, name)())
    backbone = convert(net, ours(**VARIANTS[name]), tmp_path / 'torchvision.pth')
    nodes = ['layer1', 'layer2', 'layer3', 'layer4']
    host = create_feature_extractor(net, return_nodes=nodes)
    difference = largest_difference(host, backbone, lambda x: tuple(host(x).values()))
    assert difference < TOLERANCE


@pytest.mark.parametrize('name', only_by_default(TIMM, 'resnet50d'))
def test_timm(name, tmp_path):
    timm = pytest.importorskip('timm')
    host = randomise(timm.create_model(name))
    backbone = convert(host, ours(**VARIANTS[TIMM[name]]), tmp_path / 'timm.pth')

    def features(x):
        return host.forward_intermediates(
            x, indices=[1, 2, 3, 4], intermediates_only=True
        )

    assert largest_difference(host, backbone, features) < TOLERANCE


@pytest.mark.parametrize('name', only_by_default(MMDET, 'dc5-caffe', 'v1d'))
def test_mmdet(name, tmp_path):
    from mmdet.models import backbones

    kind, theirs, changed = MMDET[name]
    host = randomise(getattr(backbones, kind)(norm_eval=False, **theirs))
    same = {k: v for k, v in theirs.items() if k != 'style'}
    backbone = convert(host, ours(**same, **changed), tmp_path / 'mmdet.pth')
    assert largest_difference(host, backbone) < TOLERANCE
    assert list(backbone.state_dict()) == list(host.state_dict())


@pytest.mark.parametrize('kind', only_by_default(('ResNet', 'ResNetV1d'), 'ResNetV1d'))
def test_mmpretrain(kind, tmp_path):
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    host = getattr(backbones, kind)(
        depth=50, out_indices=(0, 1, 2, 3), stem_channels=16, **SMALL
    )
    deep = dict(deep_stem=True, avg_down=True) if kind == 'ResNetV1d' else {}
    backbone = ours(depth=50, **deep, **SMALL)
    convert(randomise(host), backbone, tmp_path / 'mmpretrain.pth')
    assert largest_difference(host, backbone) < TOLERANCE


@pytest.mark.parametrize('norm', ['BN', 'GN'])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'backbone.bottom_up.'])
def test_names_of_detectron2(prefix, norm, tmp_path):
    """Names as detectron2's ``BasicStem`` and ``BottleneckBlock`` give them."""
    norm_cfg = dict(type='BN') if norm == 'BN' else dict(type='GN', num_groups=2)
    plain = randomise(ours(depth=50, num_stages=2, norm_cfg=norm_cfg, **SMALL))
    checkpoint = {}
    for key, value in plain.state_dict().items():
        name = re.sub(r'^(conv1|[bg]n1)\.', r'stem.\1.', key)
        name = re.sub(r'^layer(\d)', lambda m: f'res{int(m[1]) + 1}', name)
        name = re.sub(r'\b[bg]n(\d)\.', r'conv\1.norm.', name)
        name = name.replace('downsample.0.', 'shortcut.')
        name = name.replace('downsample.1.', 'shortcut.norm.')
        if not name.endswith('num_batches_tracked'):
            checkpoint[prefix + name] = value
    assert f'{prefix}res3.0.shortcut.norm.weight' in checkpoint
    if prefix:
        checkpoint['backbone.fpn_lateral2.weight'] = torch.zeros(4, 4, 1, 1)
        checkpoint['proposal_generator.rpn_head.conv.weight'] = torch.zeros(1)
    torch.save({'model': checkpoint}, tmp_path / 'detectron2.pth')

    if norm == 'BN':
        norm_cfg = dict(type='mmdet_backbones.FrozenBN')
    backbone = ours(depth=50, num_stages=2, norm_cfg=norm_cfg, **SMALL)
    path = str(tmp_path / 'detectron2.pth')
    report = load_pretrained(backbone, path, min_coverage=1.0)
    assert report.dialect == 'detectron2'
    assert report.unexpected == report.missing == ()
    expected = plain.eval()(x := torch.randn(1, 3, 64, 96))
    for theirs, mine in zip(expected, backbone(x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('type_', ['BN', 'mmdet_backbones.FrozenBN'])
def test_detector_checkpoint_of_mmdet(type_, tmp_path):
    """A detector trained with mmdet's class keeps its backbone, by mmengine too."""
    from mmdet.models.backbones import ResNet as Host
    from mmengine.runner.checkpoint import load_checkpoint

    host = randomise(Host(depth=50, norm_eval=True, **SMALL))
    state_dict = {f'backbone.{k}': v for k, v in host.state_dict().items()}
    path = str(tmp_path / 'detector.pth')
    torch.save({'state_dict': state_dict, 'meta': {}}, path)
    backbone = ours(depth=50, norm_cfg=dict(type=type_), **SMALL)
    load_pretrained(backbone, path, min_coverage=1.0)
    x = torch.randn(1, 3, 64, 96)
    host.eval()
    for theirs, mine in zip(host(x), backbone.eval()(x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    backbone = ours(depth=50, norm_cfg=dict(type=type_), **SMALL)
    load_checkpoint(torch.nn.ModuleDict({'backbone': backbone}), path, strict=True)
    assert torch.equal(backbone.layer4[2].bn3.weight, host.layer4[2].bn3.weight)
