"""The contract on every published net of every family.

It speaks of shapes and parameters, not of numbers, so the meta device is enough for
most nets. One small net of each kind computes as well; all of them compute in the
exhaustive tests.
"""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from variants import (
    REPRESENTATIVES,
    config,
    listed_variants,
    timm_variants,
    torchvision_variants,
)

VARIANTS = {
    **listed_variants(),
    **torchvision_variants(),
    **timm_variants(),
}
# Others differ from these in width and depth only.
OF_TORCHVISION = {
    f'torchvision-{name}'
    for name in (
        *('alexnet', 'convnext_tiny', 'densenet121', 'efficientnet_b0', 'googlenet'),
        *('efficientnet_v2_s', 'inception_v3', 'maxvit_t', 'mnasnet0_5', 'resnet18'),
        *('mobilenet_v2', 'mobilenet_v3_small', 'regnet_x_400mf', 'regnet_y_400mf'),
        *('resnet50', 'shufflenet_v2_x0_5', 'squeezenet1_0', 'swin_t', 'swin_v2_t'),
        *('vgg11', 'vgg11_bn', 'vit_b_32'),
    )
}
# The first of each class of ours and one of every family of timm. Of torchvision's
# families test_torchvision_nets.py trains one net each.
COMPUTED = {
    *{cfg['type']: name for name, cfg in reversed(listed_variants().items())}.values(),
    *timm_variants(at_most=100_000_000),
}


def on_devices():
    """Small nets compute; the others do so exhaustively and are on meta otherwise."""
    assert set(VARIANTS) >= OF_TORCHVISION
    for name in VARIANTS:
        small = name in COMPUTED
        yield pytest.param(
            name, 'cpu', marks=pytest.mark.slow if small else pytest.mark.exhaustive
        )
        if not small:
            rest = name.startswith('torchvision') and name not in OF_TORCHVISION
            mark = pytest.mark.exhaustive if rest else pytest.mark.slow
            yield pytest.param(name, 'meta', marks=mark)


# One net of each class, and of each kind of timm net.
COMPILED = (
    'res2net50',
    'resnet18',
    'timm-resnet18',
    'timm-convnext',
    'timm-vit',
    'torchvision-resnet18',
    'shufflenet',
    'mobilenet-v2',
    'mobilenet-v3',
    'swin',
    'convnext',
    'mmpretrain-efficientnet',
)


def size_of(net):
    sizes = getattr(net, '_sizes', None)
    return getattr(sizes, 'fixed', None) or (96, 160)


def check_levels(net, cfg, size):
    with torch.no_grad():
        outputs = net.eval()(torch.rand(1, 3, *size))
    assert isinstance(outputs, tuple)
    for output, level in zip(outputs, net.levels, strict=True):
        height, width = (-(-side // level.stride) for side in size)
        assert output.shape == (1, level.channels, height, width), level
    strides = sorted(set(net.out_strides))[:2]
    part = MODELS.build(dict(cfg, out_strides=strides))
    assert part.out_strides == tuple(strides)
    assert set(part.levels) <= set(net.levels)
    return part


def check_training(net, size):
    assert net.train() is net
    sum(o.square().mean() for o in net(torch.rand(2, 3, *size))).backward()
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    assert trained
    assert [n for n, p in trained.items() if p.grad is None] == []
    # Of the largest nets there is room for a few copies of the parameters only.
    net.zero_grad()


def check_freezing(cfg, size):
    net = MODELS.build(dict(cfg, frozen_stages=1, norm_eval=True))
    net.train()
    parts = [part for stage in (0, 1) for part in net.stage_modules(stage)]
    for part in parts:
        if isinstance(part, nn.Module):
            assert not any(module.training for module in part.modules())
            assert not any(p.requires_grad for p in part.parameters())
        else:
            assert not part.requires_grad
    assert any(not p.requires_grad for p in net.parameters())
    # All that DistributedDataParallel asks of a net without its search.
    check_training(net, size)


def check_copies(net):
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        twin.load_state_dict(net.state_dict())
        assert [n for n, _ in twin.named_parameters()] == [
            n for n, _ in net.named_parameters()
        ]


@pytest.mark.parametrize(('name', 'device'), on_devices())
def test_the_contract_holds(name, device):
    cfg = VARIANTS[name]
    with torch.device(device):
        net = MODELS.build(cfg)
        size = size_of(net)
        check_training(check_levels(net, cfg, size), size)
        check_training(net, size)
        # The numbers of a copy are those of the default tests.
        check_copies(net.to('meta'))
        check_freezing(cfg, size)
        for arguments, error in (
            (dict(nonsense=1), TypeError),
            (dict(out_indices=(99,)), ValueError),
        ):
            with pytest.raises(error):
                MODELS.build(dict(cfg, **arguments))


def on_backends():
    """The default backend waits for a C++ compiler: one net does, or all of them."""
    for name in COMPILED:
        assert name in REPRESENTATIVES
        yield pytest.param(
            name,
            'inductor',
            marks=pytest.mark.slow if name == 'resnet18' else pytest.mark.exhaustive,
        )
        # Traces and decomposes as the default backend, without its C++.
        yield pytest.param(name, 'aot_eager_decomp_partition', marks=pytest.mark.slow)


@pytest.mark.parametrize(('name', 'backend'), on_backends())
def test_compiled_nets_compute_the_same(name, backend):
    net = MODELS.build(config(name)).eval()
    compiled = torch.compile(net, backend=backend)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(net(x), compiled(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
