"""Key names of other sources: the same features after loading, and a way back."""

import re

import pytest
import timm
import torch
from author_layouts import CONVNEXT
from torch import nn
from torchvision import models

from mmdet_backbones.registry import MODELS
from mmdet_backbones.shapes.build import on_meta
from mmdet_backbones.weights import load_pretrained
from mmdet_backbones.weights.names.dialect import is_computed


def build(kind: str, **arguments) -> nn.Module:
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments)).eval()


def timm_net(name: str, **arguments) -> nn.Module:
    return build('TIMMBackbone', model_name=name, **arguments)


def torchvision_net(name: str, **arguments) -> nn.Module:
    return build('TorchvisionBackbone', model_name=name, **arguments)


def mmpretrain_net(**model) -> nn.Module:
    return build('MMPretrainBackbone', model=model)


def scramble(net: nn.Module) -> nn.Module:
    """Give every tensor values of its own, statistics included."""
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith('running_var') or value.dim() == 1:
                value.copy_(0.5 + torch.rand_like(value.float()))
            elif value.is_floating_point() and not is_computed(key):
                # Of the size at which features neither vanish nor grow.
                value.mul_(1 + torch.rand_like(value))
    return net


def of_timm(name):
    return lambda: timm.create_model(name), lambda: timm_net(name)


def of_torchvision(name):
    return lambda: models.get_model(name), lambda: torchvision_net(name)


def own(make):
    return make, make


def plain_outputs(kind, **arguments):
    """A net of mmpretrain without the normalisation of its outputs."""

    def make():
        net = build(kind, **arguments)
        for index in net.out_indices:
            if hasattr(net, f'norm{index}'):
                setattr(net, f'norm{index}', nn.Identity())
        return net

    return make


def shufflenet():
    return build('ShuffleNetV2', widen_factor=0.5)


def mobilenet_v2():
    return build('MobileNetV2')


def mobilenet_v3():
    return build('MobileNetV3', arch='small')


def efficientnet():
    return mmpretrain_net(type='EfficientNet', arch='b0')


def vgg():
    return mmpretrain_net(type='VGG', depth=11, norm_cfg=dict(type='BN'))


swin = plain_outputs('SwinTransformer', arch='tiny')
convnext = plain_outputs('ConvNeXt', arch='tiny')
SWIN_OF_TIMM = 'swin_tiny_patch4_window7_224'
VIT_OF_TIMM = 'vit_base_patch16_224'

# The net of the source, the same net under our contract, the net that takes the
# weights, and the strides whose features both have.
PAIRS = {
    'torchvision > mmpretrain ShuffleNetV2': (
        *of_torchvision('shufflenet_v2_x0_5'), shufflenet, (8, 16, 32)),
    'mmpretrain > torchvision ShuffleNetV2': (
        *own(shufflenet), lambda: torchvision_net('shufflenet_v2_x0_5'), (8, 16, 32)),
    'torchvision > mmpretrain MobileNetV2': (
        *of_torchvision('mobilenet_v2'), mobilenet_v2, (8, 16, 32)),
    'torchvision > timm MobileNetV2': (
        *of_torchvision('mobilenet_v2'), lambda: timm_net('mobilenetv2_100'), (8, 16)),
    'timm > mmpretrain MobileNetV2': (
        *of_timm('mobilenetv2_100'), mobilenet_v2, (8, 16)),
    'timm > torchvision MobileNetV2': (
        *of_timm('mobilenetv2_100'), lambda: torchvision_net('mobilenet_v2'), (8, 16)),
    'mmpretrain > timm MobileNetV2': (
        *own(mobilenet_v2), lambda: timm_net('mobilenetv2_100'), (8, 16)),
    'mmpretrain > torchvision MobileNetV2': (
        *own(mobilenet_v2), lambda: torchvision_net('mobilenet_v2'), (8, 16, 32)),
    'torchvision > mmpretrain MobileNetV3': (
        *of_torchvision('mobilenet_v3_small'), mobilenet_v3, (8, 16, 32)),
    'timm > mmpretrain MobileNetV3': (
        *of_timm('mobilenetv3_small_100'), mobilenet_v3, (8, 16)),
    'torchvision > timm MobileNetV3': (
        *of_torchvision('mobilenet_v3_small'),
        lambda: timm_net('mobilenetv3_small_100'), (8, 16)),
    'timm > torchvision MobileNetV3': (
        *of_timm('mobilenetv3_small_100'),
        lambda: torchvision_net('mobilenet_v3_small'), (8, 16)),
    'mmpretrain > timm MobileNetV3': (
        *own(mobilenet_v3), lambda: timm_net('mobilenetv3_small_100'), (8, 16)),
    'mmpretrain > torchvision MobileNetV3': (
        *own(mobilenet_v3), lambda: torchvision_net('mobilenet_v3_small'), (8, 16)),
    'torchvision > timm EfficientNet': (
        *of_torchvision('efficientnet_b0'), lambda: timm_net('efficientnet_b0'),
        (8, 16)),
    'torchvision > timm Swin': (
        *of_torchvision('swin_t'), lambda: timm_net(SWIN_OF_TIMM), (8, 16)),
    'timm > torchvision Swin': (
        *of_timm(SWIN_OF_TIMM), lambda: torchvision_net('swin_t'), (8, 16)),
    'torchvision > mmpretrain Swin': (*of_torchvision('swin_t'), swin, (8, 16)),
    'timm > mmpretrain Swin': (*of_timm(SWIN_OF_TIMM), swin, (8, 16)),
    'mmpretrain > timm Swin': (
        *own(swin), lambda: timm_net(SWIN_OF_TIMM), (8, 16)),
    'mmpretrain > torchvision Swin': (
        *own(swin), lambda: torchvision_net('swin_t'), (8, 16)),
    'torchvision > timm ConvNeXt': (
        *of_torchvision('convnext_tiny'), lambda: timm_net('convnext_tiny'),
        (8, 16, 32)),
    'timm > torchvision ConvNeXt': (
        *of_timm('convnext_tiny'), lambda: torchvision_net('convnext_tiny'),
        (8, 16, 32)),
    'timm > mmpretrain ConvNeXt': (*of_timm('convnext_tiny'), convnext, (8, 16, 32)),
    'torchvision > mmpretrain ConvNeXt': (
        *of_torchvision('convnext_tiny'), convnext, (8, 16, 32)),
    'mmpretrain > timm ConvNeXt': (
        *own(convnext), lambda: timm_net('convnext_tiny'), (8, 16, 32)),
    'torchvision > mmpretrain VGG': (*of_torchvision('vgg11_bn'), vgg, (32,)),
    'mmpretrain > timm VGG': (*own(vgg), lambda: timm_net('vgg11_bn'), (32,)),
    'torchvision > timm ViT': (
        lambda: models.get_model('vit_b_16'),
        lambda: torchvision_net('vit_b_16', out_indices=(11,)),
        lambda: timm_net(VIT_OF_TIMM, out_indices=(11,)), (16,)),
    'timm > torchvision ViT': (
        lambda: timm.create_model(VIT_OF_TIMM),
        lambda: timm_net(VIT_OF_TIMM, out_indices=(11,)),
        lambda: torchvision_net('vit_b_16', out_indices=(11,)), (16,)),
}  # fmt: skip
# Both libraries need more time than the others.
_LARGE = re.compile('Swin|ConvNeXt|EfficientNet|VGG|ViT')


def same_epsilon(net: nn.Module) -> None:
    """The classes differ in it, which has nothing to do with the weights."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
        elif isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if _LARGE.search(name) else ())
        for name in PAIRS
    ],
)
def test_weights_of_one_source_give_the_same_features_in_a_net_of_another(
    tmp_path, name
):
    source, same, ours, strides = PAIRS[name]
    path = str(tmp_path / 'net.pth')
    torch.save(scramble(source()).state_dict(), path)
    expected, net = same(), ours()
    load_pretrained(expected, path, min_coverage=0)
    missing = {'mmpretrain > torchvision Swin': ['norm.*']}.get(name, ())
    report = load_pretrained(net, path, min_coverage=0, allow_missing=missing)
    assert name.split(' > ')[0] in report.dialect or 'timm' in report.dialect
    assert report.coverage > 0.999
    assert report.mismatched == ()
    assert [k for k in report.unexpected if 'norm' not in k] == []
    # Swin: whole windows, as each library pads maps in a way of its own.
    image = torch.randn(
        1, 3, *((224, 224) if re.search('Swin|ViT', name) else (64, 96))
    )
    features = []
    for model in (expected, net):
        same_epsilon(model)
        with torch.no_grad():
            found = dict(zip(model.out_strides, model(image), strict=True))
        features.append([found[stride] for stride in strides])
    for theirs, here in zip(*features, strict=True):
        assert torch.isfinite(theirs).all()
        torch.testing.assert_close(here, theirs, rtol=1e-3, atol=1e-4)


_TINY_VIT = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)


def nets_with_dialects():
    return {
        'ResNet': lambda: build('ResNet', depth=18),
        'ResNet-D': lambda: build('ResNet', depth=50, deep_stem=True, avg_down=True),
        'Res2Net': lambda: build('Res2Net', depth=50, deep_stem=True, avg_down=True),
        'timm resnet18': lambda: timm_net('resnet18'),
        'timm resnet18d': lambda: timm_net('resnet18d'),
        'timm mobilenetv3_small_050': lambda: timm_net('mobilenetv3_small_050'),
        'timm mobilenetv2_035': lambda: timm_net('mobilenetv2_035'),
        'timm tf_efficientnet_lite0': lambda: timm_net('tf_efficientnet_lite0'),
        'timm swin': lambda: timm_net(SWIN_OF_TIMM),
        'timm convnext_atto': lambda: timm_net('convnext_atto'),
        'timm convnextv2_atto': lambda: timm_net('convnextv2_atto', out_indices=(0, 1)),
        'timm beit': lambda: timm_net('beit_base_patch16_224', out_indices=(0,)),
        'timm swinv2': lambda: timm_net('swinv2_tiny_window8_256', out_indices=(0, 1)),
        'timm densenet121': lambda: timm_net('densenet121', out_indices=(0, 1)),
        'timm test_vit': lambda: timm_net('test_vit'),
        'timm vit_tiny_patch16_224': lambda: timm_net(
            'vit_tiny_patch16_224', out_indices=(2,)
        ),
        'torchvision resnet18': lambda: torchvision_net('resnet18'),
        'torchvision mobilenet_v2': lambda: torchvision_net('mobilenet_v2'),
        'mmpretrain ShuffleNetV2': shufflenet,
        'mmpretrain MobileNetV2': lambda: build('MobileNetV2', widen_factor=0.5),
        'mmpretrain MobileNetV3': mobilenet_v3,
        'mmpretrain EfficientNet': efficientnet,
        'mmpretrain SwinTransformer': lambda: build('SwinTransformer', arch='tiny'),
        'mmpretrain ConvNeXt': lambda: build('ConvNeXt', arch='atto'),
        'mmpretrain VGG': vgg,
        'mmpretrain ViT': lambda: mmpretrain_net(
            type='VisionTransformer', arch=_TINY_VIT, layer_scale_init_value=1e-5
        ),
        'mmpretrain SwinTransformerV2': lambda: mmpretrain_net(
            type='SwinTransformerV2',
            arch=dict(
                embed_dims=24,
                depths=[1, 1, 1, 1],
                num_heads=[1, 1, 1, 1],
                extra_norm_every_n_blocks=0,
            ),
        ),
    }


# Which dialects change the names of which net; only these are a test for it.
ROUND_TRIPS = {
    'ResNet': ('ResNet of transformers', 'detectron2'),
    'ResNet-D': (
        'deep stem of the Res2Net authors and of timm', 'ResNet-D of mmpretrain',
        'ResNet-D of RT-DETR and PaddleDetection',
        'ResNet-D of RT-DETR in transformers'),
    'Res2Net': (
        'deep stem of the Res2Net authors and of timm', 'deep stem of mmpretrain'),
    'timm resnet18': ('timm', 'ResNet of transformers', 'detectron2'),
    'timm resnet18d': (
        'timm', 'ResNet-D of RT-DETR and PaddleDetection',
        'ResNet-D of RT-DETR in transformers', 'deep stem of mmdet',
        'ResNet-D of mmpretrain'),
    'timm mobilenetv3_small_050': (
        'MobileNetV3 of torchvision', 'MobileNetV3 of mmpretrain'),
    'timm mobilenetv2_035': (
        'MobileNetV2 of torchvision', 'MobileNetV2 of tonylins',
        'MobileNetV2 of mmpretrain'),
    'timm tf_efficientnet_lite0': (
        'efficientnet-pytorch', 'EfficientNet of torchvision'),
    'timm swin': (
        'Swin of its authors', 'Swin of torchvision', 'Swin of transformers'),
    'timm convnext_atto': (
        'ConvNeXt of its authors', 'ConvNeXt of torchvision',
        'ConvNeXt of transformers', 'DINOv3 ConvNeXt of transformers'),
    'timm convnextv2_atto': (
        'ConvNeXt of its authors', 'ConvNeXt of transformers'),
    'timm densenet121': ('timm',),
    'timm test_vit': (
        'timm', 'ViT of transformers', 'DINOv2 of transformers',
        'DINOv3 of transformers', 'CLIP or SigLIP of transformers',
        'ViT of torchvision'),
    'timm beit': ('ViT of transformers',),
    'timm swinv2': ('Swin of its authors', 'Swin of transformers'),
    'timm vit_tiny_patch16_224': ('DINOv2 of transformers',),
    'torchvision resnet18': ('torchvision', 'ResNet of transformers'),
    'torchvision mobilenet_v2': ('torchvision', 'MobileNetV2 of tonylins'),
    'mmpretrain ShuffleNetV2': ('ShuffleNetV2 of torchvision',),
    'mmpretrain MobileNetV2': (
        'MobileNetV2 of torchvision', 'MobileNetV2 of tonylins'),
    'mmpretrain MobileNetV3': ('MobileNetV3 of torchvision',),
    'mmpretrain EfficientNet': ('efficientnet-pytorch',),
    'mmpretrain SwinTransformer': (
        'Swin of its authors', 'Swin of timm', 'Swin of torchvision',
        'Swin of transformers'),
    'mmpretrain ConvNeXt': (
        'ConvNeXt of its authors', 'ConvNeXt of timm', 'ConvNeXt of torchvision',
        'ConvNeXt of transformers'),
    'mmpretrain VGG': ('VGG of torchvision and timm',),
    'mmpretrain ViT': (
        'ViT of timm', 'DeiT-III of its authors', 'DINOv2 of transformers'),
    'mmpretrain SwinTransformerV2': (
        'Swin V2 of timm', 'Swin V2 of its authors', 'Swin V2 of transformers'),
}  # fmt: skip


# A second or two each.
LARGE = ('timm swinv2', 'timm swin', 'mmpretrain SwinTransformer', 'timm beit',
         'ResNet-D', 'timm densenet121')  # fmt: skip


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())
        for name in ROUND_TRIPS
    ],
)
def test_a_round_trip_through_each_dialect_is_bit_equal(tmp_path, name):
    net = scramble(nets_with_dialects()[name]())
    state = {k: v.clone() for k, v in net.state_dict().items()}
    for dialect_name in ROUND_TRIPS[name]:
        dialect = next(d for d in net.dialects if d.name == dialect_name)
        written = dialect.write(state)
        assert written.keys() != state.keys(), dialect_name
        path = tmp_path / f'{dialect_name}.pth'
        torch.save({k: v.clone() for k, v in written.items()}, path)
        other = nets_with_dialects()[name]()
        report = load_pretrained(other, str(path))
        assert report.coverage == 1, dialect_name
        assert (report.missing, report.unexpected) == ((), ()), dialect_name
        for key, value in other.state_dict().items():
            assert torch.equal(value, state[key]), (dialect_name, key)


@pytest.mark.slow
def test_every_dialect_that_can_be_written_makes_a_round_trip():
    for name, make in nets_with_dialects().items():
        net = on_meta(make)
        covered = set(ROUND_TRIPS[name])
        for dialect in net.dialects:
            if dialect.writes(net.state_dict()):
                tested = any(dialect.name in names for names in ROUND_TRIPS.values())
                assert tested, dialect.name
        assert covered <= {dialect.name for dialect in net.dialects}


def test_a_table_that_leads_the_other_way_cannot_be_written():
    net = shufflenet()
    dialect = next(
        d for d in torchvision_net('resnet18').dialects if d.through is not None
    )
    with pytest.raises(ValueError, match='not written to it'):
        dialect.write(net.state_dict())


@pytest.mark.parametrize(
    'wrap',
    [
        lambda k: f'backbone.{k}',
        lambda k: f'encoder.{k}',
        lambda k: f'online_net.0.{k}',
        lambda k: f'encoder_q.0.{k}',
        lambda k: f'model.backbone.{k}',
        lambda k: f'ema_backbone_{k.replace(".", "_")}',
        lambda k: f'ema_{k.replace(".", "_")}',
    ],
    ids=['detector', 'encoder', 'BYOL', 'MoCo', 'model', 'mmcls EMA', 'EMA'],
)
def test_prefixes_of_training_programs(tmp_path, wrap):
    source = scramble(build('ResNet', depth=18))
    state = {wrap(k): v for k, v in source.state_dict().items()}
    state |= {'head.fc.weight': torch.zeros(10, 512), 'neck.0.weight': torch.ones(3)}
    torch.save(state, tmp_path / 'net.pth')
    net = build('ResNet', depth=18)
    report = load_pretrained(net, str(tmp_path / 'net.pth'))
    assert (report.coverage, report.missing, report.unexpected) == (1, (), ())
    assert report.outside == 2
    for key, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_averaged_copies_do_not_hide_the_weights(tmp_path):
    source = scramble(build('ResNet', depth=18)).state_dict()
    state = {f'backbone.{k}': v for k, v in source.items()}
    state |= {
        f'ema_backbone_{k.replace(".", "_")}': torch.zeros_like(v)
        for k, v in source.items()
    }
    torch.save(state, tmp_path / 'net.pth')
    net = build('ResNet', depth=18)
    report = load_pretrained(net, str(tmp_path / 'net.pth'))
    assert (report.prefix, report.unexpected) == ('backbone.', ())
    assert torch.equal(net.state_dict()['conv1.weight'], source['conv1.weight'])
    load_pretrained(net, str(tmp_path / 'net.pth'), prefix='ema_backbone_')
    assert not net.state_dict()['conv1.weight'].any()


@pytest.mark.parametrize(
    ('name', 'dialect'),
    [('resnet18', 'timm'), ('densenet121', 'timm'), ('convnext_atto', 'timm')],
)
def test_names_are_written_as_the_source_has_them(name, dialect):
    net = timm_net(name)
    written = next(d for d in net.dialects if d.name == dialect).write(net.state_dict())
    theirs = timm.create_model(name).state_dict()
    assert written.keys() <= theirs.keys()
    assert all(written[key].shape == theirs[key].shape for key in written)


def test_convnext_v2_of_its_authors(tmp_path):
    """They keep the normalisation of responses outside the MLP, as (1, 1, 1, C)."""
    state = CONVNEXT(scramble(timm.create_model('convnextv2_atto')).state_dict())
    torch.save(state, tmp_path / 'net.pth')
    net = timm_net('convnextv2_atto')
    report = load_pretrained(net, str(tmp_path / 'net.pth'))
    assert report.dialect == 'ConvNeXt of its authors'
    assert (report.coverage, report.missing, report.mismatched) == (1, (), ())
    found = net.state_dict()['timm_model.stages_1.blocks.0.mlp.grn.weight']
    assert torch.equal(found, state['stages.1.0.grn.gamma'].flatten())
