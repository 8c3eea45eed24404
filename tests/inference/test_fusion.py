"""Folding batch normalisation into convolutions: same outputs, nothing else changed."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d
from variants import config, every

from mmdet_backbones import fuse_for_inference
from mmdet_backbones.backbones.frozen_norm import FrozenBN
from mmdet_backbones.registry import MODELS

# Layer normalisation alone, which no convolution can take in.
WITHOUT = (
    'timm-convnext',
    'timm-vit',
    'timm-swin',
    'torchvision-swin',
    'transformers-convnext',
    'transformers-vit',
    'transformers-swin',
    'swin',
    'convnext',
)
NORMS = (_BatchNorm, FrozenBN, FrozenBatchNorm2d)


def with_statistics(module: nn.Module) -> nn.Module:
    """Fill in statistics that a wrong fold could not get away with."""
    for layer in module.modules():
        if isinstance(layer, NORMS):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    module.eval()
    return module


def norms_in(module: nn.Module) -> int:
    return sum(isinstance(layer, NORMS) for layer in module.modules())


@torch.no_grad()
def assert_same(net: nn.Module, fused: nn.Module, images: torch.Tensor) -> None:
    expected, found = net(images), fused(images)
    if isinstance(expected, torch.Tensor):
        expected, found = [expected], [found]
    for before, after in zip(expected, found, strict=True):
        assert (before - after).abs().max() <= 1e-4 * before.abs().max()


@every
def test_outputs_of_every_representative(name):
    net = with_statistics(MODELS.build(config(name)))
    count = norms_in(net)
    state = copy.deepcopy(net.state_dict())
    fused = fuse_for_inference(net)
    assert fused.fused.folded == count
    assert (count > 0) == (name not in WITHOUT)
    assert not fused.fused.left
    assert norms_in(fused) == 0
    assert_same(net, fused, torch.randn(2, 3, 64, 96))
    assert norms_in(net) == count
    assert state.keys() == net.state_dict().keys()
    assert all(
        torch.equal(state[key], value) for key, value in net.state_dict().items()
    )


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='Res2Net', norm_cfg=dict(type='mmdet_backbones.FrozenBN')),
        dict(type='ResNet', depth=18, norm_cfg=dict(type='SyncBN')),
        dict(type='TIMMBackbone', model_name='resnet18', norm_layer='FrozenBN'),
        dict(type='TIMMBackbone', model_name='mobilenetv3_small_100'),
        dict(type='TorchvisionBackbone', model_name='resnet18', norm_layer='FrozenBN'),
    ],
    ids=['ours-frozen', 'ours-sync', 'timm-frozen', 'timm-act', 'torchvision-frozen'],
)
def test_every_kind_of_normalisation(cfg):
    cfg = {**cfg, 'type': f'mmdet_backbones.{cfg["type"]}'}
    net = with_statistics(MODELS.build(cfg))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == norms_in(net) > 0
    assert norms_in(fused) == 0
    assert_same(net, fused, torch.randn(1, 3, 64, 96))


def test_timm_layers_keep_their_drop_and_activation():
    from timm.layers import BatchNormAct2d

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), BatchNormAct2d(8, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    )
    fused = fuse_for_inference(with_statistics(net))
    assert [type(part) for part in fused[1]] == [nn.Dropout, nn.SiLU]
    assert_same(net, fused, torch.randn(2, 3, 16, 16))


def test_a_net_that_rearranges_its_pixels_first():
    net = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3), nn.BatchNorm2d(8))
    fused = fuse_for_inference(with_statistics(net))
    assert fused.fused.folded == 1
    assert_same(net, fused, torch.randn(1, 3, 64, 64))


class TwoReaders(nn.Module):
    """A convolution whose result is normalised, and read by ``reader`` as well."""

    def __init__(self, reader):
        super().__init__()
        # The order of definition is not that of execution.
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.reader = reader

    def forward(self, x):
        y = self.conv(x)
        return self.reader(self.norm(y), y)


READERS = {
    'sum': lambda normed, y: normed + y,
    'slice': lambda normed, y: torch.cat([normed, y[:, :2]], dim=1),
    'returned': lambda normed, y: (normed, y),
}


@pytest.mark.parametrize('reader', READERS)
def test_a_convolution_with_two_readers_is_not_folded(reader):
    net = with_statistics(TwoReaders(READERS[reader]))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 0
    assert 'something else uses the result' in fused.fused.left['norm']
    assert_same(net, fused, torch.randn(1, 3, 16, 16))
    assert fused.conv.bias is None


def test_the_order_of_definition_does_not_matter():
    net = with_statistics(TwoReaders(lambda normed, _: normed.relu()))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 1
    assert_same(net, fused, torch.randn(1, 3, 16, 16))


class Shared(nn.Module):
    """One convolution for two levels, whose statistics may be their own."""

    def __init__(self, own: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(1 + own))

    def forward(self, x):
        maps = [x, functional.max_pool2d(x, 2)]
        return [
            self.norms[i % len(self.norms)](self.conv(m)) for i, m in enumerate(maps)
        ]


@pytest.mark.parametrize(('own', 'folded'), [(True, 0), (False, 1)])
def test_a_convolution_shared_by_levels(own, folded):
    net = with_statistics(Shared(own))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == folded
    assert_same(net, fused, torch.randn(1, 3, 16, 16))


class Tied(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


class Doubling(nn.BatchNorm2d):
    """Does more than its parent."""

    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ('net', 'reason'),
    [
        (Tied(), 'not the result'),
        (nn.Sequential(nn.Conv2d(3, 4, 3), Doubling(4)), 'more than normalise'),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 'not the'),
        (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3)), 'not the result'),
        (
            nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)),
            'not the result',
        ),
    ],
    ids=['tied', 'subclass', 'after an activation', 'no convolution', 'grouped'],
)
def test_what_is_left_as_it_is(net, reason):
    with_statistics(net)
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 0
    assert [reason in told for told in fused.fused.left.values()] == [True]


def test_weights_made_in_each_pass_are_left():
    from timm.layers import StdConv2d

    net = with_statistics(nn.Sequential(StdConv2d(3, 8, 3), nn.BatchNorm2d(8)))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 0
    assert_same(net, fused, torch.randn(1, 3, 16, 16))


@pytest.mark.slow
def test_dense_nets_fold_what_follows_a_convolution():
    # Half of the layers of a DenseNet normalise concatenations. So many maps come and
    # go that a number of a dead one is given to another, which must not confuse.
    kind = 'mmdet_backbones.TorchvisionBackbone'
    net = MODELS.build(dict(type=kind, model_name='densenet121'))
    with_statistics(net)
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 59
    assert norms_in(fused) == len(fused.fused.left) == 121 - 59
    for name, reason in fused.fused.left.items():
        assert not name.endswith(('norm0', 'norm2'))
        assert 'not the result of a foldable convolution' in reason
    assert_same(net, fused, torch.randn(1, 3, 64, 64))


def test_transposed_convolutions():
    net = with_statistics(nn.Sequential(nn.ConvTranspose2d(3, 8, 4), nn.BatchNorm2d(8)))
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 1
    assert_same(net, fused, torch.randn(1, 3, 16, 16))


def test_without_running_statistics_nothing_is_folded():
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)
    fused = fuse_for_inference(nn.Sequential(*layers))
    assert fused.fused.left == {'1': 'it has no running statistics'}


def test_someone_who_listens_to_a_layer_still_hears_it():
    net = with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    net[0].register_forward_hook(lambda _, inputs, output: output * 3)
    fused = fuse_for_inference(net)
    assert fused.fused.folded == 0
    assert_same(net, fused, torch.randn(1, 3, 16, 16))


def test_formats_and_types_are_kept():
    net = MODELS.build(config('resnet18')).to(memory_format=torch.channels_last)
    fused = fuse_for_inference(with_statistics(net).double())
    assert fused.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in fused.parameters()} == {torch.float64}


def test_a_fused_net_does_not_train():
    net = MODELS.build(config('resnet18'))
    net.train()
    fused = fuse_for_inference(net)
    assert net.training
    assert not fused.training
    assert not any(p.requires_grad for p in fused.parameters())
    assert all(p.requires_grad for p in net.parameters())
    for owner in (fused, nn.Sequential(fused), copy.deepcopy(fused)):
        owner.eval()
        with pytest.raises(RuntimeError, match='train the module that was folded'):
            owner.train()


def test_weights_that_are_not_folded_are_refused():
    net = with_statistics(MODELS.build(config('resnet18')))
    fused = fuse_for_inference(net)
    with pytest.raises(RuntimeError, match='load them first'):
        fused.load_state_dict(net.state_dict(), strict=False)
    other = fuse_for_inference(MODELS.build(config('resnet18')))
    other.load_state_dict(fused.state_dict())
    assert_same(net, pickle.loads(pickle.dumps(other)), torch.randn(1, 3, 64, 64))


def test_in_place_and_twice():
    net = with_statistics(MODELS.build(config('resnet18')))
    original = copy.deepcopy(net)
    fused = fuse_for_inference(net, inplace=True)
    assert fused is net
    again = fuse_for_inference(fused)
    assert again is not fused
    assert again.fused == fused.fused
    assert_same(original, again, torch.randn(1, 3, 64, 64))


def test_arguments_that_no_image_stands_for():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

        def forward(self, left, right):
            return self.body(left + right)

    net = with_statistics(Sum())
    with pytest.raises(ValueError, match=r'example=\(images,\)'):
        fuse_for_inference(net)
    maps = torch.randn(2, 1, 3, 16, 16).unbind()
    assert fuse_for_inference(net, example=maps).fused.folded == 1


@pytest.mark.slow
def test_compiled():
    net = with_statistics(MODELS.build(config('timm-resnet18')))
    fused = fuse_for_inference(net, compile=True)
    assert fused.fused.folded == 20
    assert fused._compiled_call_impl is not None
    assert_same(net, fused, torch.randn(1, 3, 64, 64))
