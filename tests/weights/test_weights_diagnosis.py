"""Weights that do not fit: the cause, the line to write, and nothing half loaded."""

import time

import pytest
import timm
import torch
from torchvision import models

from mmdet_backbones import PretrainedWeightsError
from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights import load_pretrained
from mmdet_backbones.weights.names.kinds import kind_of, other_kind_by_file


def build(kind, **arguments):
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments))


@pytest.fixture
def refused(tmp_path):
    """Load a state dict, which must be refused without touching the net."""

    def load(net, state_dict, **arguments):
        path = tmp_path / 'net.pth'
        torch.save(state_dict, path)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with pytest.raises(PretrainedWeightsError) as error:
            load_pretrained(net, str(path), **arguments)
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key]), key
        return str(error.value)

    return load


def under(prefix, state_dict):
    return {prefix + key: value for key, value in state_dict.items()}


@pytest.mark.parametrize('prefix', ['net.', 'detector.body.', 'a.b.c.'])
def test_the_prefix_that_fits_is_named(refused, prefix):
    net = build('ResNet', depth=18)
    state = under(prefix, models.resnet18().state_dict())
    state |= {f'head.{i}.weight': torch.zeros(3) for i in range(30)}
    message = refused(net, state)
    assert f"Cause: the prefix. Under '{prefix}' the file covers 100.0%" in message
    assert f"prefix='{prefix}')" in message


def test_a_wrong_prefix_is_told_from_none(refused):
    net = build('ResNet', depth=18)
    state = under('teacher_net.', models.resnet18().state_dict())
    state |= under('student_net.', {'a.weight': torch.zeros(3)})
    message = refused(net, state, prefix='student_net.')
    assert "prefix='teacher_net.')" in message


@pytest.mark.parametrize(
    ('net', 'source', 'here', 'there'),
    [
        (('Res2Net', dict(depth=50)), 'resnet50', 'Res2Net', 'ResNet'),
        (('ResNet', dict(depth=18)), 'shufflenet_v2_x0_5', 'ResNet', 'ShuffleNetV2'),
        (('MobileNetV2', {}), 'mobilenet_v3_small', 'MobileNetV2', 'MobileNetV3'),
        (
            ('TIMMBackbone', dict(model_name='convnext_atto')),
            'swin_t',
            'ConvNeXt',
            'Swin',
        ),
        (
            ('TorchvisionBackbone', dict(model_name='vgg11')),
            'convnext_tiny',
            'VGG',
            'ConvNeXt',
        ),
    ],
)
def test_another_architecture_is_named(refused, net, source, here, there):
    kind, arguments = net
    with torch.device('meta'):
        shapes = models.get_model(source).state_dict()
    state = {k: torch.zeros(v.shape) for k, v in shapes.items()}
    message = refused(build(kind, **arguments), state)
    assert f'The file looks like a {there}, the net is a {here}' in message


@pytest.mark.parametrize(
    ('net', 'source', 'line'),
    [
        (('ResNet', dict(depth=18)), 'resnet50', 'write depth=50'),
        (('ResNet', dict(depth=50)), 'resnet18', 'write depth=18'),
        (('ResNet', dict(depth=101)), 'resnet50', 'write depth=50'),
        (
            ('TIMMBackbone', dict(model_name='resnet18')),
            'resnet50',
            "write model_name='resnet50'",
        ),
        (
            ('TorchvisionBackbone', dict(model_name='resnet18')),
            'resnet34',
            "write model_name='resnet34'",
        ),
        (('ShuffleNetV2', {}), 'shufflenet_v2_x0_5', 'write widen_factor=0.5'),
        (
            ('MobileNetV3', dict(arch='large')),
            'mobilenet_v3_small',
            "write arch='small'",
        ),
    ],
)
def test_another_width_or_depth_is_named(refused, net, source, line):
    kind, arguments = net
    message = refused(build(kind, **arguments), models.get_model(source).state_dict())
    assert 'Cause: another width or depth' in message
    assert line in message


def of_transformers():
    """ViT as transformers names it."""
    net = build('TIMMBackbone', model_name='vit_base_patch16_224', out_indices=(11,))
    dialect = next(d for d in net.dialects if d.name == 'ViT of transformers')
    return dialect.write(net.state_dict())


@pytest.mark.parametrize(
    ('net', 'make', 'there'),
    [
        (
            ('TIMMBackbone', dict(model_name='densenet121')),
            lambda: build(
                'MMPretrainBackbone', model=dict(type='DenseNet', arch='121')
            ).state_dict(),
            'others (stem.0.weight, ',
        ),
        (
            ('TorchvisionBackbone', dict(model_name='regnet_x_400mf')),
            lambda: timm.create_model('regnetx_004_tv').state_dict(),
            'the names of timm',
        ),
        pytest.param(
            ('TorchvisionBackbone', dict(model_name='vit_b_16', out_indices=(11,))),
            of_transformers,
            'the names of transformers',
            marks=pytest.mark.slow,
        ),
    ],
    ids=['mmpretrain', 'timm', 'transformers'],
)
def test_the_same_net_under_names_that_are_not_read_is_told(refused, net, make, there):
    kind, arguments = net
    message = refused(build(kind, **arguments), make())
    assert f'Cause: other names. The file has the same net under {there}' in message
    library = 'timm' if kind == 'TIMMBackbone' else 'torchvision'
    name = arguments['model_name']
    line = f'write a checkpoint of a {name} under the names of {library}'
    assert message.endswith(line)


def test_the_file_of_a_deeper_net_is_no_match_though_it_has_every_name(refused):
    with torch.device('meta'):
        shapes = timm.create_model('swin_small_patch4_window7_224').state_dict()
    state = {k: torch.zeros(v.shape) for k, v in shapes.items()}
    message = refused(build('SwinTransformer', arch='tiny'), state)
    assert 'The file has blocks that SwinTransformer lacks' in message
    assert "write arch='small'" in message


def test_a_net_that_was_cut_short_takes_the_file_of_the_whole(tmp_path):
    torch.save(timm.create_model('test_vit').state_dict(), tmp_path / 'vit.pth')
    net = build('TIMMBackbone', model_name='test_vit', out_indices=(1,))
    assert load_pretrained(net, str(tmp_path / 'vit.pth')).coverage == 1


def test_a_thousand_names_of_nothing_are_refused_soon(refused):
    net = build('ResNet', depth=50)
    start = time.perf_counter()
    message = refused(net, {f'a{i}.b.c': torch.zeros(3) for i in range(1000)})
    assert time.perf_counter() - start < 10
    assert 'no name fits' in message
    assert 'a0.b.c' in message
    assert message.count('\n') < 60


def test_a_thousand_extra_names_are_counted(tmp_path):
    state = models.resnet18().state_dict()
    state |= {f'extra.{i}.weight': torch.zeros(1) for i in range(1000)}
    torch.save(state, tmp_path / 'net.pth')
    report = load_pretrained(build('ResNet', depth=18), str(tmp_path / 'net.pth'))
    assert report.coverage == 1
    assert len(report.unexpected) == 1000
    assert '... and 990 more' in str(report)
    assert len(report.to_dict()['unexpected']) == 1000


def test_a_frozen_stage_that_was_not_loaded_is_an_error_of_its_own(refused, tmp_path):
    net = build('ResNet', depth=50, frozen_stages=2, norm_eval=False)
    state = models.resnet50().state_dict()
    state = {k: v for k, v in state.items() if not k.startswith(('conv1', 'bn1'))}
    message = refused(net, state)
    assert 'frozen_stages=2 freezes random values in stage 0: bn1.bias' in message
    assert 'frozen_stages=-1' in message
    allowed = dict(allow_missing=['conv1.*', 'bn1.*'])
    assert 'allow_random_frozen=True' in refused(net, state, **allowed)
    path = str(tmp_path / 'net.pth')
    report = load_pretrained(net, path, allow_random_frozen=True, **allowed)
    assert report.coverage > 0.95
    trained = build('ResNet', depth=50, norm_eval=False)
    assert load_pretrained(trained, path, **allowed).coverage > 0.95


def test_norm_eval_over_missing_statistics_is_an_error_of_its_own(refused):
    net = build('ResNet', depth=50, norm_eval=True)
    state = models.resnet50().state_dict()
    state = {k: v for k, v in state.items() if 'running' not in k}
    message = refused(net, state)
    assert 'batch normalisation that never trains (norm_eval=True)' in message
    assert 'norm_eval=False' in message


def test_a_fresh_layer_norm_of_an_output_may_be_frozen(tmp_path):
    source = timm.create_model('swin_tiny_patch4_window7_224')
    torch.save(source.state_dict(), tmp_path / 'net.pth')
    net = build('SwinTransformer', arch='tiny', frozen_stages=2)
    report = load_pretrained(net, str(tmp_path / 'net.pth'))
    assert 'norm0.weight' in report.missing


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('resnet18', 'ResNet'),
        ('res2net50_26w_4s', 'Res2Net'),
        ('vgg11', 'VGG'),
        ('densenet121', 'DenseNet'),
        ('hrnet_w18_small', 'HRNet'),
        ('regnetx_002', 'RegNet'),
        ('swinv2_tiny_window8_256', 'SwinV2'),
        ('convnextv2_atto', 'ConvNeXtV2'),
        ('convnext_atto', 'ConvNeXt'),
        ('vit_tiny_patch16_224', 'ViT'),
        ('vit_small_patch14_dinov2', 'DINOv2'),
        ('beit_base_patch16_224', 'BEiT'),
        ('mobilenetv3_small_050', 'MobileNetV3 or EfficientNet'),
        ('mobilenetv2_050', 'MobileNetV2 or EfficientNet'),
    ],
)
def test_kinds_of_nets_are_told_by_their_names(name, kind):
    with torch.device('meta'):
        assert kind_of(timm.create_model(name).state_dict()) == kind


@pytest.mark.parametrize(
    ('kind', 'checkpoint', 'other'),
    [
        ('ShuffleNetV2', 'https://host/shufflenet_v1_1x-5666.pth', 'ShuffleNetV1'),
        ('MobileNetV2', 'torchvision://mobilenet_v3_small', 'MobileNetV3'),
        ('MobileNetV3 or EfficientNet', 'timm://efficientnet_b0', None),
        ('MobileNetV2 or EfficientNet', 'timm://mobilenetv3_small_100', 'MobileNetV3'),
        ('ResNet', 'torchvision://vgg16', None),
        ('VGG', 'work_dirs/vgg/epoch_12.pth', None),
        (None, 'torchvision://vgg16', None),
    ],
)
def test_names_of_files_tell_of_which_net_they_are(kind, checkpoint, other):
    assert other_kind_by_file(kind, checkpoint) == other
