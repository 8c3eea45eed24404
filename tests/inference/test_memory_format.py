"""Which memory format is taken, and that a detector computes the same in it."""

import copy
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel
from torch import nn

from mmdet_backbones.inference.memory_format import (
    ChannelsLastHook,
    _precision,
    try_formats,
)
from mmdet_backbones.registry import MODELS

LAST = torch.channels_last


class SlowIn(nn.Module):
    """A convolution that waits in one of the formats."""

    def __init__(self, slow):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.slow = slow

    def forward(self, x):
        last = self.conv.weight.is_contiguous(memory_format=LAST)
        if last == (self.slow == 'channels_last'):
            time.sleep(0.2)
        return (self.norm(self.conv(x)),)


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(8, 4, 3)

    def test_step(self, data):
        return [self.head(self.backbone(data)[0])]


class Run:
    """What a hook sees of a Runner."""

    logger = MMLogger.get_instance('test_memory_format')

    def __init__(self, model):
        self.model = model


def is_last(net):
    return net.weight.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize('slow', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('phase', ['before_train', 'before_test'])
def test_the_slower_format_is_left(slow, phase):
    detector = Detector(SlowIn(slow))
    getattr(ChannelsLastHook(), phase)(Run(detector))
    assert is_last(detector.head) == (slow == 'contiguous')


def test_a_hook_decides_once():
    detector = Detector(SlowIn('channels_last'))
    hook = ChannelsLastHook()
    hook.before_train(Run(detector))
    detector.backbone.slow = 'contiguous'
    hook.before_val(Run(detector))
    assert not is_last(detector.head)


def test_without_measuring_it_converts():
    detector = Detector(SlowIn('channels_last'))
    ChannelsLastHook(measure=False).before_train(Run(detector))
    assert is_last(detector.head)


def test_a_detector_that_is_tested_with_augmentation_is_converted():
    class Augmented(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    detector = Detector(SlowIn('contiguous'))
    ChannelsLastHook().before_test(Run(Augmented(detector)))
    assert is_last(detector.head)


def test_without_a_backbone_it_says_what_to_write():
    with pytest.raises(ValueError, match='measure=False'):
        ChannelsLastHook().before_train(Run(nn.Conv2d(3, 8, 3)))


@pytest.mark.parametrize('frozen', [False, True])
def test_a_trial_leaves_the_net_and_random_numbers_alone(frozen):
    net = MODELS.build(dict(type='ResNet', depth=18, frozen_stages=4 if frozen else -1))
    before = copy.deepcopy(net.state_dict())
    generator = torch.get_rng_state()
    trial = try_formats(net, training=True)
    assert set(trial.seconds) == {'contiguous', 'channels_last'}
    assert min(trial.seconds.values()) > 0
    assert trial.faster in str(trial)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ('training', 'run', 'expected'),
    [
        (True, dict(optim_wrapper=SimpleNamespace(cast_dtype=torch.bfloat16)),
         torch.bfloat16),
        (True, dict(optim_wrapper=SimpleNamespace(cast_dtype=None)), torch.float16),
        (True, dict(optim_wrapper=SimpleNamespace()), None),
        (False, dict(_val_loop=SimpleNamespace(fp16=True)), torch.float16),
        (False, dict(_test_loop=SimpleNamespace(fp16=False)), None),
    ],
)  # fmt: skip
def test_the_precision_is_that_of_the_run(training, run, expected):
    assert _precision(SimpleNamespace(**run), training) is expected


def test_it_measures_in_the_precision_of_the_run():
    seen = set()

    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            maps = self.conv(x)
            seen.add(maps.dtype)
            return (maps,)

    lines = []
    runner = Run(Detector(Seeing()))
    runner.logger = SimpleNamespace(info=lines.append)
    runner.optim_wrapper = SimpleNamespace(cast_dtype=torch.bfloat16)
    ChannelsLastHook().before_train(runner)
    assert seen == {torch.bfloat16}
    assert 'in bfloat16 takes' in lines[0]


@pytest.mark.parametrize('name', ['test_vit', 'resnext50_32x4d'])
def test_nets_of_other_kinds_can_be_tried(name):
    cfg = dict(type='TIMMBackbone', model_name=name, out_indices=(0,))
    assert try_formats(MODELS.build(cfg), training=False).seconds
