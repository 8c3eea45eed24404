"""What users of timm's nets in mmdet fall into: the host's behaviour, then ours."""

from pathlib import Path

import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModule

from mmdet_backbones.adapters.timm.backbone import TIMMBackbone
from mmdet_backbones.errors import explain
from mmdet_backbones.necks.simple_feature_pyramid import SimpleFeaturePyramid

SWIN = 'swin_tiny_patch4_window7_224'


@pytest.fixture(scope='module')
def wrapper():
    """mmpretrain's class for timm's nets."""
    return pytest.importorskip('mmpretrain.models.backbones.timm_backbone').TIMMBackbone


def test_pretrained_weights_are_not_overwritten_by_the_initialisation(
    tmp_path,
):
    source = timm.create_model('test_vit')
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    key = 'blocks.0.attn.qkv.weight'
    expected = source.state_dict()[key]

    # A wrapper as users write it: timm loads, mmengine initialises.
    holder = BaseModule()
    holder.timm_model = timm.create_model('test_vit')
    holder.timm_model.load_state_dict(source.state_dict())
    holder.init_weights()
    assert not torch.equal(holder.timm_model.state_dict()[key], expected)

    net = TIMMBackbone('test_vit', checkpoint_path=str(tmp_path / 'vit.pth'))
    for _ in range(2):  # a detector calls it for its backbone, Runner once more
        net.init_weights()
    assert torch.equal(net.timm_model.model.state_dict()[key], expected)


def test_checkpoint_path_works_with_feature_maps(tmp_path, wrapper):
    source = timm.create_model('resnet18')
    path = tmp_path / 'resnet18.pth'
    torch.save(source.state_dict(), path)
    with pytest.raises(RuntimeError, match='state_dict'):
        wrapper('resnet18', features_only=True, checkpoint_path=str(path))

    net = TIMMBackbone('resnet18', checkpoint_path=str(path))
    net.init_weights()
    assert torch.equal(net.timm_model.conv1.weight, source.conv1.weight)


@pytest.mark.slow
def test_the_same_strides_are_the_same_levels_in_every_family():
    strides = {
        name: timm.create_model(name, features_only=True).feature_info.reduction()
        for name in ('resnet18', 'convnext_atto', 'vgg11', 'darknet53')
    }
    assert strides['resnet18'][2:5] == [8, 16, 32]
    assert len(strides['convnext_atto']) == 4
    assert strides['vgg11'][2:5] == [4, 8, 16]
    with pytest.raises(IndexError):
        timm.create_model('convnext_atto', features_only=True, out_indices=(2, 3, 4))

    chosen = {}
    for name in strides:
        net = TIMMBackbone(name, out_strides=(8, 16, 32))
        assert net.out_strides == (8, 16, 32)
        chosen[name] = net.out_indices
    assert chosen == {
        'resnet18': (2, 3, 4),
        'convnext_atto': (1, 2, 3),
        'vgg11': (3, 4, 5),
        'darknet53': (3, 4, 5),
    }
    with pytest.raises(ValueError, match='no level of index 4') as error:
        TIMMBackbone('convnext_atto', out_indices=(2, 3, 4))
    assert '1 (80 channels, stride 8)' in str(error.value)


def test_an_order_of_levels_that_has_no_effect_is_an_error():
    host = MODELS.build(dict(type='ResNet', depth=18, out_indices=(3, 2, 1)))
    maps = host(torch.rand(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [128, 256, 512]

    with pytest.raises(ValueError, match='shallow to deep'):
        TIMMBackbone('resnet18', out_indices=(4, 3, 2))
    neck = dict(type='YOLOV3Neck', num_scales=3, out_channels=[256, 128, 64])
    net = TIMMBackbone('resnet18', out_strides=(8, 16, 32))
    neck = MODELS.build(dict(neck, in_channels=list(net.out_channels[::-1])))
    assert [m.shape[1] for m in neck(net(torch.rand(1, 3, 64, 64)))] == [256, 128, 64]


def test_a_wrapped_net_has_levels_freezing_and_channels_first(wrapper):
    theirs = wrapper(SWIN, features_only=True, strict_img_size=False)
    assert not hasattr(theirs, 'out_indices')
    assert theirs(torch.rand(1, 3, 64, 96))[0].shape == (1, 16, 24, 96)
    with pytest.raises(TypeError, match='frozen_stages'):
        wrapper(SWIN, features_only=True, frozen_stages=1)

    ours = TIMMBackbone(SWIN, frozen_stages=1)
    assert ours.out_indices == (0, 1, 2, 3)
    assert ours(torch.rand(1, 3, 64, 96))[0].shape == (1, 96, 16, 24)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', SWIN])
def test_the_size_of_the_image_is_free(name):
    x = torch.rand(1, 3, 96, 128)
    with pytest.raises(AssertionError, match="doesn't match model"):
        timm.create_model(name, features_only=True)(x)

    net = TIMMBackbone(name)
    assert net(x)[-1].shape[2:] == (
        96 // net.out_strides[-1],
        128 // net.out_strides[-1],
    )


def test_a_net_of_a_single_stride_becomes_a_pyramid():
    reductions = timm.create_model(
        'test_vit', features_only=True
    ).feature_info.reduction()
    assert set(reductions) == {16}

    net = TIMMBackbone('test_vit', out_strides=(16,))
    neck = SimpleFeaturePyramid(in_channels=net.out_channels[0], out_channels=32)
    maps = neck(net(torch.rand(1, 3, 128, 192)))
    assert [128 // m.shape[2] for m in maps] == [4, 8, 16, 32, 64]


def test_arguments_left_over_from_the_base_are_named(tmp_path):
    base = tmp_path / 'base.py'
    base.write_text(
        "model = dict(backbone=dict(type='ResNet', depth=50, style='pytorch'))"
    )
    text = (
        "_base_ = './base.py'\n"
        "model = dict(backbone=dict({}type='mmdet_backbones.TIMMBackbone',"
        "model_name='resnet18'))"
    )
    cfg = tmp_path / 'mine.py'
    cfg.write_text(text.format(''))
    merged = Config.fromfile(cfg).model.backbone
    assert merged.depth == 50

    with pytest.raises(TypeError) as error:
        MODELS.build(merged)
    message = explain(error.value)
    assert "TIMMBackbone takes no argument 'depth'" in message
    assert '_delete_=True' in message
    cfg.write_text(text.format('_delete_=True, '))
    assert MODELS.build(Config.fromfile(cfg).model.backbone).out_strides[-1] == 32


def test_a_backbone_says_which_images_its_weights_expect():
    import mmdet

    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    yolov3 = Config.fromfile(configs / 'yolo' / 'yolov3_d53_8xb8-320-273e_coco.py')
    host = yolov3.model.data_preprocessor
    assert (host.mean, host.std) == ([0, 0, 0], [255.0, 255.0, 255.0])

    ours = TIMMBackbone('resnet18').preprocess
    assert ours.mean == pytest.approx((123.675, 116.28, 103.53))
    assert ours.std == pytest.approx((58.395, 57.12, 57.375))
    assert ours.channel_order == 'rgb'
