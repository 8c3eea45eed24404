"""Tensors of another shape that have one right way to be fitted."""

import pytest
import timm
import torch
from timm.models import adapt_input_conv
from torchvision import models

from mmdet_backbones import PretrainedWeightsError
from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights import load_pretrained


def build(kind, **arguments):
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments)).eval()


@pytest.fixture
def saved(tmp_path):
    def save(net):
        path = tmp_path / 'net.pth'
        torch.save(net.state_dict(), path)
        return str(path)

    return save


@pytest.mark.parametrize(
    ('kind', 'arguments', 'key'),
    [
        ('ResNet', dict(depth=18), 'conv1.weight'),
        ('TIMMBackbone', dict(model_name='resnet18'), 'timm_model.conv1.weight'),
        ('TorchvisionBackbone', dict(model_name='resnet18'), 'body.conv1.weight'),
    ],
)
@pytest.mark.parametrize('channels', [1, 6])
def test_stem_of_other_channels_answers_a_grey_image_alike(
    saved, kind, arguments, key, channels
):
    source = models.resnet18()
    grey = torch.rand(1, 1, 64, 64)
    net = build(kind, in_channels=channels, **arguments)
    report = load_pretrained(net, saved(source))
    assert report.coverage == 1
    ((name, there, here, how),) = report.adapted
    assert (name, there, here) == (key, (64, 3, 7, 7), (64, channels, 7, 7))
    assert how in str(report)
    full = build(kind, **arguments)
    load_pretrained(full, saved(source))
    with torch.no_grad():
        one = net(grey.expand(-1, channels, -1, -1))
        three = full(grey.expand(-1, 3, -1, -1))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_stem_of_four_channels_is_not_frozen_at_random(saved):
    source = models.resnet18()
    net = build('ResNet', depth=18, in_channels=4, frozen_stages=1)
    load_pretrained(net, saved(source))
    assert not net.conv1.weight.requires_grad
    expected = source.conv1.weight.detach() * 0.75
    torch.testing.assert_close(net.conv1.weight[:, :3], expected)
    torch.testing.assert_close(net.conv1.weight[:, 3], expected[:, 0])


@pytest.mark.parametrize('channels', [1, 2, 4, 5, 6])
def test_a_stem_is_adapted_as_timm_does_it(saved, channels):
    source = models.resnet18()
    net = build('ResNet', depth=18, in_channels=channels)
    load_pretrained(net, saved(source))
    expected = adapt_input_conv(channels, source.conv1.weight.detach())
    torch.testing.assert_close(net.conv1.weight.detach(), expected)


def test_a_depthwise_kernel_is_no_stem(saved):
    source = models.mobilenet_v2()
    wrong = source.state_dict()
    key = 'features.1.conv.0.0.weight'
    wrong[key] = wrong[key].repeat(1, 32, 1, 1)
    net = build('TorchvisionBackbone', model_name='mobilenet_v2')
    source.state_dict = lambda: wrong
    report = load_pretrained(net, saved(source), min_coverage=0.5)
    assert [entry.name for entry in report.mismatched] == [f'body.{key}']
    assert report.adapted == ()


@pytest.mark.parametrize('name', ['test_vit', 'vit_tiny_patch16_224'])
def test_position_embeddings_are_interpolated(saved, name):
    source = timm.create_model(name)
    with torch.no_grad():
        source.pos_embed[:, 1:] = 3.5
        source.pos_embed[:, :1] = -2
    net = build('TIMMBackbone', model_name=name, img_size=(96, 192), out_indices=(0,))
    report = load_pretrained(net, saved(source))
    ((key, *_, how),) = report.adapted
    assert key.endswith('pos_embed')
    assert '6 x 12' in how
    position = net.state_dict()[key]
    assert position.shape[1] == 6 * 12 + 1
    # A constant stays constant, and the class token is no position.
    torch.testing.assert_close(position[:, 1:], torch.full_like(position[:, 1:], 3.5))
    torch.testing.assert_close(position[:, :1], torch.full_like(position[:, :1], -2))


def test_relative_position_bias_goes_to_another_window(saved):
    source = timm.create_model('swin_tiny_patch4_window7_224')
    table = source.layers[0].blocks[0].attn.relative_position_bias_table
    with torch.no_grad():
        rows = torch.arange(13.0)[:, None].expand(13, 13).reshape(-1)
        table.copy_(rows[:, None].expand_as(table))
    net = build('SwinTransformer', arch='tiny', window_size=12, norm_cfg=None)
    report = load_pretrained(net, saved(source))
    assert (report.coverage, report.missing, report.mismatched) == (1, (), ())
    assert len(report.adapted) == 12
    assert '7 x 7 to 12 x 12' in report.adapted[0].how
    key = 'stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
    ours = net.state_dict()[key][:, 0].reshape(23, 23)
    # Rises along rows only, from the first to the last value of the table.
    assert ours.std(1).max() < 1e-3
    assert (ours.diff(dim=0) > 0).all()
    assert (ours[11, 0] - 6).abs() < 1e-3


def test_computed_tables_are_neither_loaded_nor_missed(saved):
    source = timm.create_model('swin_tiny_patch4_window7_224')
    net = build('SwinTransformer', arch='tiny', window_size=8, norm_cfg=None)
    index = 'stages.0.blocks.0.attn.w_msa.relative_position_index'
    before = net.state_dict()[index].clone()
    report = load_pretrained(net, saved(source))
    assert torch.equal(net.state_dict()[index], before)
    assert not any('index' in key for key in (*report.missing, *report.unexpected))


def test_what_has_no_right_answer_is_refused(saved):
    net = build('ResNet', depth=18, base_channels=32)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(PretrainedWeightsError, match='width or depth'):
        load_pretrained(net, saved(models.resnet18()))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
