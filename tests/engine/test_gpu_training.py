"""What a training adds on a GPU, as far as a CPU can tell, and compiled parts."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from small_detectors import build, small_config
from torch import nn

from mmdet_backbones.engine import launch
from mmdet_backbones.engine.layer_decay import fused
from mmdet_backbones.errors import UserError


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(type='AdamW', lr=1), True),
        (dict(type=torch.optim.AdamW, lr=1), True),
        (dict(type='AdamW', fused=False), False),
        (dict(type='AdamW', foreach=True), None),
        (dict(type='SGD', lr=1), None),
        (dict(type='AdamW8bit', lr=1), None),
    ],
)
def test_whose_steps_are_fused(settings, expected):
    before = dict(settings)
    assert fused(settings).get('fused') is expected
    assert settings == before


def test_fused_steps_of_a_group_per_parameter_are_the_same_steps():
    nets, settings = [], dict(type='AdamW', lr=0.1, weight_decay=0.1)
    torch.manual_seed(0)
    # A bias before the normalisation would have no gradient but rounding errors.
    first = nn.Conv2d(3, 4, 3, bias=False)
    net = nn.Sequential(first, nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    images = torch.randn(2, 3, 8, 8)
    for optimizer in (settings, fused(settings)):
        nets.append(copy.deepcopy(net))
        paramwise = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
        wrapper = build_optim_wrapper(
            nets[-1], dict(optimizer=optimizer, paramwise_cfg=paramwise)
        )
        # mmengine keeps the rate of the config in one of its own.
        assert len(wrapper.param_groups) == 5 + 1
        for _ in range(3):
            wrapper.update_params(nets[-1](images).square().mean())
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(type='AmpOptimWrapper'), True),
        (dict(type='mmdet_backbones.ShardedOptimWrapper'), None),
    ],
)
def test_the_optimiser_of_a_config_is_fused_where_there_is_a_gpu(
    settings, expected, monkeypatch
):
    cfg = Config(dict(optim_wrapper=dict(settings, optimizer=dict(type='AdamW'))))
    launch.fuse_optimizer(cfg)
    if not torch.cuda.is_available():
        assert 'fused' not in cfg.optim_wrapper.optimizer
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    launch.fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') is expected
    launch.fuse_optimizer(Config(dict(model=dict(type='RetinaNet'))))


def test_what_has_no_parts_is_not_compiled():
    with pytest.raises(UserError, match='leave --compile away'):
        launch.compile_parts(SimpleNamespace(model=nn.Conv2d(3, 8, 3)))


@pytest.mark.slow
def test_compiled_parts_learn_the_same(tmp_path):
    detector = build(small_config(tmp_path))
    detector.train()
    compiled = copy.deepcopy(detector)
    launch.compile_parts(SimpleNamespace(model=compiled))
    assert compiled.state_dict().keys() == detector.state_dict().keys()
    images = torch.randn(2, 3, 64, 96)
    for net in (detector, compiled):
        maps = net(images, mode='tensor')[0]
        torch.stack([level.square().mean() for level in maps]).sum().backward()
    for one, other in zip(detector.parameters(), compiled.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
    # What an averaged copy of the weights is, and a checkpoint.
    assert copy.deepcopy(compiled).backbone._compiled_call_impl is None
