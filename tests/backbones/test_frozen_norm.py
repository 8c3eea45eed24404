"""FrozenBN: batch normalisation that never trains."""

import pytest
import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from mmdet_backbones.backbones.frozen_norm import FrozenBN

FROZEN = dict(type='mmdet_backbones.FrozenBN')


def image(channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 64, 96, generator=generator)


def frozen_and_ordinary_norm(channels=4):
    ordinary = nn.BatchNorm2d(channels, eps=1e-2)
    for value in (ordinary.weight.data, ordinary.bias.data, ordinary.running_mean):
        value.normal_()
    ordinary.running_var.uniform_(0.5, 2)
    name, frozen = build_norm_layer(dict(FROZEN, eps=1e-2), channels, postfix=1)
    assert name == 'bn1'
    # With its counter of batches, and strictly.
    assert 'num_batches_tracked' in ordinary.state_dict()
    frozen.load_state_dict(ordinary.state_dict())
    return frozen, ordinary.eval()


def test_frozen_norm_is_batch_normalisation_in_eval_mode():
    frozen, ordinary = frozen_and_ordinary_norm()
    assert type(frozen) is FrozenBN
    assert list(frozen.parameters()) == []
    assert {n for n, _ in frozen.named_buffers()} == {
        *('weight', 'bias', 'running_mean', 'running_var'),
    }
    x = image(4)
    assert torch.equal(frozen.train()(x), ordinary(x))
    nn.BatchNorm2d(4).load_state_dict(frozen.state_dict(), strict=False)

    host = FrozenBatchNorm2d(4, eps=1e-2)
    host.load_state_dict(ordinary.state_dict())
    gradients = []
    for norm in (frozen, host, ordinary):
        out = norm(leaf := image(4).requires_grad_())
        torch.testing.assert_close(out, ordinary(x))
        out.square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


def test_frozen_norm_keeps_the_type_of_its_input_and_no_map_for_backward():
    frozen, ordinary = frozen_and_ordinary_norm()
    x = image(4).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor),
        torch.autocast('cpu', torch.bfloat16),
    ):
        out = frozen(x)
        assert all(tensor.numel() == 4 for tensor in kept)
        assert FrozenBatchNorm2d(4)(x).dtype is torch.float32
    assert out.dtype is torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, ordinary(x.float()).bfloat16(), rtol=0.02, atol=0.1)


@pytest.mark.parametrize('kind', ['mmdet_backbones.ResNet', 'mmdet.ResNet'])
def test_a_net_of_frozen_norms_has_nothing_else_to_train(kind):
    cfg = dict(type=kind, depth=18, base_channels=16, norm_cfg=FROZEN)
    backbone = MODELS.build(cfg)
    backbone.train()
    assert not any(isinstance(m, _BatchNorm) for m in backbone.modules())
    assert all(parameter.dim() == 4 for parameter in backbone.parameters())
    assert isinstance(backbone.layer4[0].downsample[1], FrozenBN)
    ordinary = MODELS.build(dict(cfg, norm_cfg=dict(type='BN')))
    backbone.load_state_dict(ordinary.state_dict())
    ordinary.eval()
    for a, b in zip(backbone(image()), ordinary(image()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_it_is_found_without_importing_the_package(run_python):
    code = (
        'import sys; from mmcv.cnn import build_norm_layer; '
        "norm = build_norm_layer(dict(type='mmdet_backbones.FrozenBN'), 4)[1]; "
        "print(type(norm).__name__, 'mmdet.models' in sys.modules)"
    )
    result = run_python('-c', code)
    assert result.stdout.split() == ['FrozenBN', 'False'], result.stderr
