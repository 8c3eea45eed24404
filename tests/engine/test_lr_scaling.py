"""Learning rates that follow the batch size of all processes together."""

import json
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR, OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner

from mmdet_backbones.engine import launch
from mmdet_backbones.engine.hooks import LearningRateScaleHook
from mmdet_backbones.engine.lr_scaling import (
    Scale,
    find_scale,
    read_rates,
    scale_rates,
    tabulate_rates,
)
from mmdet_backbones.errors import UserError

PRINT_LR = 'tools/print_lr.py'
YOLOX = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
FASTER_RCNN = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def small(**settings):
    return Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9)
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.001, begin=0, end=500),
                dict(type='CosineAnnealingLR', eta_min=0.001, T_max=10),
                dict(type='CosineAnnealingMomentum', eta_min=0.85, T_max=10),
            ],
            auto_scale_lr=dict(enable=True, base_batch_size=16),
            **settings,
        )
    )


@pytest.mark.parametrize(
    ('gpus', 'accumulated', 'rule', 'factor'),
    [
        (1, 1, 'linear', 1 / 8),
        (8, 1, 'linear', 1),
        (64, 1, 'linear', 8),
        (2, 4, 'linear', 1),
        (2, 1, 'sqrt', 0.5),
        (32, 1, 'sqrt', 2),
    ],
)
def test_every_rate_and_no_share_is_scaled(gpus, accumulated, rule, factor):
    cfg = small()
    cfg.optim_wrapper.accumulative_counts = accumulated
    cfg.auto_scale_lr.rule = rule
    scale = find_scale(cfg, gpus)
    assert scale.factor == pytest.approx(factor)
    scale_rates(cfg, scale)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.02 * factor)
    warm_up, cosine, momentum = cfg.param_scheduler
    assert cosine.eta_min == pytest.approx(0.001 * factor)
    assert warm_up.start_factor == 0.001
    assert momentum.eta_min == 0.85
    assert cfg.optim_wrapper.optimizer.momentum == 0.9


def test_the_host_leaves_accumulation_and_eta_min_out(tmp_path):
    """mmengine scales batch 4 x 16 on base 64 to lr / 16, and leaves eta_min."""
    cfg = small()
    cfg.train_dataloader.batch_size = 4
    cfg.optim_wrapper.accumulative_counts = 16
    cfg.auto_scale_lr.base_batch_size = 64
    net = torch.nn.Linear(2, 2)
    wrapper = OptimWrapper(torch.optim.SGD(net.parameters(), lr=0.02))
    runner = Runner(
        net,
        str(tmp_path),
        train_dataloader=dict(batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper,
        experiment_name='host',
    )
    runner.scale_lr(wrapper, cfg.auto_scale_lr)
    assert wrapper.get_lr()['lr'] == [0.02 / 16]

    assert find_scale(cfg, 1).factor == 1
    cfg.auto_scale_lr.base_batch_size = 128
    scale_rates(cfg, find_scale(cfg, 1))
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.param_scheduler[1].eta_min == 0.0005


def test_groups_with_a_rate_of_their_own_and_several_optimisers():
    cfg = small()
    cfg.optim_wrapper = dict(
        constructor='Several',
        backbone=dict(
            optimizer=dict(type='AdamW', lr=1e-4),
            paramwise_cfg=dict(custom_keys=dict(head=dict(lr=1e-3, decay_mult=0))),
        ),
        head=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    assert read_rates(cfg) == {
        'optim_wrapper.backbone.optimizer.lr': 1e-4,
        'optim_wrapper.backbone.paramwise_cfg.custom_keys.head.lr': 1e-3,
        'optim_wrapper.head.optimizer.lr': 0.1,
        'param_scheduler.1.eta_min': 0.001,
    }
    scale_rates(cfg, find_scale(cfg, 4))
    assert list(read_rates(cfg).values()) == pytest.approx([5e-5, 5e-4, 0.05, 0.0005])


def test_a_scaled_config_is_scaled_once():
    cfg = small()
    scale_rates(cfg, find_scale(cfg, 2))
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert find_scale(again, 2).factor == 1
    assert again.auto_scale_lr.enable is False
    # As if it had never been scaled, on another number of processes.
    scale_rates(again, find_scale(again, 8))
    assert again.optim_wrapper.optimizer.lr == pytest.approx(0.02)


def test_all_mistakes_are_named():
    cfg = small()
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=0, rule='cubic', base=3)
    cfg.train_dataloader.batch_size = None
    with pytest.raises(UserError) as caught:
        find_scale(cfg, 1)
    for part in (
        'base_batch_size must be a positive number of images, got 0',
        "rule must be 'linear' or 'sqrt', got 'cubic'",
        'takes enable, base_batch_size, rule, not base',
        'train_dataloader.batch_size must be a positive number of images, got None',
        'write auto_scale_lr = dict(base_batch_size=16)',
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ('enable', 'wanted', 'scaled'),
    [
        (True, None, True),
        (False, None, False),
        (False, True, True),
        (True, False, False),
    ],
)
def test_flags_decide_over_the_config(enable, wanted, scaled, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    cfg = small(launcher='pytorch')
    cfg.auto_scale_lr.enable = enable
    launch.apply_lr_scaling(cfg, wanted)
    assert cfg.optim_wrapper.optimizer.lr == (0.01 if scaled else 0.02)
    assert cfg.auto_scale_lr.enable is False
    notes = [hook['note'] for hook in cfg.get('custom_hooks', [])]
    if scaled:
        assert notes == [
            'Learning rate, linear rule. optim_wrapper.optimizer.lr: 0.02 x (4 GPUs x '
            '2 images) / 16 = 0.01; param_scheduler.1.eta_min: 0.001 x (4 GPUs x 2 '
            'images) / 16 = 0.0005'
        ]
    else:
        assert notes == []


def test_a_flag_without_a_base_is_a_mistake():
    cfg = small()
    cfg.pop('auto_scale_lr')
    with pytest.raises(UserError, match='base_batch_size=16'):
        launch.apply_lr_scaling(cfg, True)
    launch.apply_lr_scaling(cfg)
    assert cfg.optim_wrapper.optimizer.lr == 0.02


def test_formula_names_what_is_accumulated():
    scale = Scale(16, num_gpus=2, samples_per_gpu=2, accumulative_counts=4, rule='sqrt')
    assert scale.formula(1e-4) == (
        '0.0001 x sqrt((2 GPUs x 2 images x 4 accumulated) / 16) = 0.0001'
    )


def checkpoint_of(batch_size, steps=3):
    """What a run with this batch size would have saved."""
    cfg = small()
    cfg.auto_scale_lr.base_batch_size = batch_size
    net = torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(
        net, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=batch_size / 100))
    )
    scheduler = CosineAnnealingLR(
        wrapper.optimizer, T_max=10, eta_min=batch_size / 1000
    )
    for _ in range(steps):
        wrapper.optimizer.step()
        scheduler.step()
    state = dict(
        meta=dict(cfg=cfg.pretty_text),
        optimizer=wrapper.state_dict(),
        param_schedulers=[scheduler.state_dict()],
    )
    return state, wrapper, scheduler


def test_a_run_resumed_on_another_number_of_processes_keeps_the_rule():
    class Quiet:
        class logger:  # noqa: N801
            @staticmethod
            def log(*args):
                messages.append(args[1] % args[2:])

    messages = []
    state, _, _ = checkpoint_of(4)
    LearningRateScaleHook(batch_size=8).after_load_checkpoint(Quiet, state)
    _, wrapper, scheduler = checkpoint_of(8, steps=0)
    wrapper.load_state_dict(state['optimizer'])
    scheduler.load_state_dict(state['param_schedulers'][0])
    _, expected, undisturbed = checkpoint_of(8)
    for _ in range(4):
        assert wrapper.get_lr()['lr'] == pytest.approx(expected.get_lr()['lr'])
        for stepped, its_scheduler in ((wrapper, scheduler), (expected, undisturbed)):
            stepped.optimizer.step()
            its_scheduler.step()
    assert messages == [
        'The checkpoint is of a run with 4 images per step, this one has 8: its '
        'learning rates are multiplied by 2'
    ]


@pytest.mark.parametrize('config', [YOLOX, FASTER_RCNN])
def test_table_follows_the_formula(config, run_tool):
    done = run_tool(PRINT_LR, config, '--gpus', '1', '2', '8', '64', '--json')
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    base, lr, per_gpu = (64, 0.01, 8) if config is YOLOX else (16, 0.02, 2)
    for row, gpus in zip(rows, (1, 2, 8, 64), strict=True):
        assert row['batch_size'] == gpus * per_gpu
        found = row['rates']['optim_wrapper.optimizer.lr']
        assert math.isclose(found, lr * gpus * per_gpu / base)
    if config is YOLOX:
        key = 'param_scheduler.1.eta_min'
        assert math.isclose(rows[0]['rates'][key], 0.0005 / 8)


def test_table_on_a_terminal(run_tool):
    done = run_tool(PRINT_LR, YOLOX, '--gpus', '4', '--samples-per-gpu', '2')
    assert done.returncode == 0, done.stderr
    assert 'linear rule, rates of 64 images' in done.stdout
    assert '0.00125' in done.stdout


def test_table_of_nothing(run_tool):
    with pytest.raises(UserError, match='1 or more'):
        tabulate_rates(small(), [0])
    done = run_tool(PRINT_LR, 'mmdet::no/such.py')
    assert done.returncode == 1
    assert done.stderr.startswith('error: there is no config')
