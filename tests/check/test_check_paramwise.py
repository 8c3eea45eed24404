"""Settings of single parameters against what each constructor really reads."""

import pytest
import torch
from cures import applied
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from planted import merged
from small_detectors import OURS, build, small_config
from torch import nn

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe
from mmdet_backbones.check.paramwise import CONSTRUCTORS
from mmdet_backbones.detector_config.detector import DetectorConfig

MODEL = merged(OURS, backbone=dict(norm_eval=False))
MMDETS = 'LearningRateDecayOptimizerConstructor'
OURS_NAME = 'mmdet_backbones.LayerDecayConstructor'


def config_with(tmp_path, constructor, paramwise, model=MODEL):
    wrapper = dict(paramwise_cfg=paramwise)
    if constructor is not None:
        wrapper['constructor'] = constructor
    return small_config(tmp_path, model, optim_wrapper=wrapper, train_dataloader=None)


def found(config):
    return [f for f in check_config(config) if f.rule == 'optimiser']


def groups_of(config):
    """Rate and decay by parameter, as the optimiser gets them."""
    detector = build(config)
    names = {id(p): name for name, p in detector.named_parameters()}
    wrapper = dict(config.optim_wrapper)
    with DefaultScope.overwrite_default_scope('mmdet'):
        optimizer = build_optim_wrapper(detector, wrapper).optimizer
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }


@pytest.mark.parametrize(
    ('constructor', 'paramwise', 'told', 'kept'),
    [
        (None, dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6,
                    norm_decay_mult=0.0), 'decay_rate, decay_type, num_layers',
         dict(decay_rate=0.7, decay_type='layer_wise', norm_decay_mult=0.0)),
        (None, dict(layer_decay_rate=0.65), 'layer_decay_rate', dict(decay_rate=0.65)),
        (None, dict(norm_decay_mul=0.0), 'norm_decay_mul (perhaps norm_decay_mult)',
         dict(norm_decay_mult=0.0)),
        (OURS_NAME, dict(decay_rate=0.7, num_layers=6), 'num_layers',
         dict(decay_rate=0.7)),
        (OURS_NAME, dict(decay_rat=0.7), 'needs decay_rate', None),
        (MMDETS, dict(decay_rate=0.7, num_layers=6, decay_type='layer_wise'),
         'of ConvNeXt only, not of ResNet', None),
        ('mmpretrain.LearningRateDecayOptimWrapperConstructor',
         dict(layer_decay_rate=0.65), 'no detector', dict(decay_rate=0.65)),
    ],
)  # fmt: skip
def test_keys_that_have_no_effect(constructor, paramwise, told, kept, tmp_path):
    config = config_with(tmp_path, constructor, paramwise)
    (finding,) = found(config)
    assert told in finding.problem
    after = applied(config, finding.cure)
    assert found(after) == [], describe(found(after))
    if kept is not None:
        assert dict(after.optim_wrapper.paramwise_cfg) == kept
    rates = groups_of(after)
    layered = 'LayerDecay' in str(after.optim_wrapper.get('constructor'))
    stem, head = rates['backbone.conv1.weight'], rates['bbox_head.retina_cls.weight']
    assert (stem[0] < head[0]) == layered


def test_keys_of_mmdet_s_constructor_for_convnext(tmp_path):
    pytest.importorskip('mmpretrain.models')
    backbone = dict(_delete_=True, type='mmdet_backbones.ConvNeXt', arch='atto',
                    out_strides=(4, 8, 16, 32))  # fmt: skip
    model = merged(OURS, neck=dict(in_channels=[40, 80, 160, 320]))
    model = dict(model, backbone=backbone)
    right = dict(num_layers=6, decay_rate=0.7, decay_type='layer_wise',
                 norm_decay_mult=0.0, bypass_duplicate=True)  # fmt: skip
    assert found(config_with(tmp_path, MMDETS, right, model)) == []
    keys = dict(custom_keys={'neck': dict(lr_mult=2.0)}, bias_lr_mult=2.0)
    config = config_with(tmp_path, MMDETS, {**right, **keys}, model)
    (finding,) = found(config)
    assert 'reads no custom_keys, bias_lr_mult' in finding.problem
    assert found(applied(config, finding.cure)) == []
    (finding,) = found(config_with(tmp_path, MMDETS, dict(decay_rate=0.7), model))
    assert 'needs num_layers' in finding.problem


def test_settings_of_custom_keys(tmp_path):
    keys = {'backbone': dict(lr_mul=0.1), 'neck': dict(decay_mult=0.0, momentum=0.5)}
    config = config_with(tmp_path, None, dict(custom_keys=keys))
    (finding,) = found(config)
    assert 'nothing reads its lr_mul' in finding.problem
    after = applied(config, finding.cure)
    assert after.optim_wrapper.paramwise_cfg.custom_keys.backbone == dict(lr_mult=0.1)
    assert found(after) == []


class Net(nn.Module):
    """One parameter of each kind that a constructor treats in its own way."""

    def __init__(self):
        super().__init__()
        self.backbone = ConvNeXt()
        self.neck = nn.Conv2d(4, 4, 1)

    def get_layer_depth(self, name):
        return (0 if 'downsample' in name else 1), 3


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.downsample_layers = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in '12')
        block = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))
        self.stages = nn.ModuleList([nn.ModuleList([block])])
        self.scale = nn.Parameter(torch.ones(4))


VALUES = dict(
    custom_keys={'neck': dict(lr_mult=3.0, decay_mult=3.0)}, num_layers=4,
    decay_rate=0.5, layer_decay_rate=0.5, decay_type='stage_wise')  # fmt: skip
# Kinds of parameters that this net does not have.
UNSEEN = ('dcn_offset_lr_mult', 'bypass_duplicate')
FOREIGN = [name for name in CONSTRUCTORS if name != 'LayerDecayConstructor']


@pytest.mark.parametrize('name', FOREIGN)
def test_the_table_says_what_a_constructor_reads(name):
    rooms = ('mmengine.optim', 'mmdet.engine.optimizers', 'mmpretrain.engine')
    cls = next(
        getattr(room, name)
        for room in map(pytest.importorskip, rooms)
        if hasattr(room, name)
    )
    needed = {
        key: 6 if key == 'num_layers' else 0.9 for key in CONSTRUCTORS[name].needed
    }
    every = {key for one in CONSTRUCTORS.values() for key in one.keys} - {*UNSEEN}

    def groups(**paramwise):
        optimizer = dict(type='SGD', lr=1.0, weight_decay=1.0)
        params: list = []
        make = cls(dict(optimizer=optimizer), {**needed, **paramwise, 'unknown': 1})
        make.add_params(params, Net())
        return [
            (group.get('lr'), group.get('weight_decay'))
            for group in params
            for _ in group['params']
        ]

    usual = groups()
    read = {key for key in every if groups(**{key: VALUES.get(key, 7.0)}) != usual}
    # Of what it also needs, another value makes another rate.
    assert read == set(CONSTRUCTORS[name].keys) - {*UNSEEN}
    for key, value in (CONSTRUCTORS[name].implied or {}).items():
        assert groups(**{key: value}) == usual


def test_no_finding_without_a_mistake(tmp_path):
    config = small_config(tmp_path, MODEL, train_dataloader=None)
    assert found(config) == []
    assert found(config_with(tmp_path, OURS_NAME, dict(decay_rate=0.8))) == []
    config = config_with(tmp_path, 'of.somebody.Else', dict(anything=1))
    assert found(config) == []
    assert DetectorConfig(config).whole is not None
