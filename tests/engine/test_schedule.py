"""Schedules of mmdet's detectors, fitted to other data and lengths."""

import math
from copy import deepcopy
from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import LinearLR  # noqa: F401 - registers all of them
from mmengine.registry import PARAM_SCHEDULERS

from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.engine.schedule import (
    LEAST_ITERATIONS,
    MOST_EPOCHS,
    fit_schedule,
)
from mmdet_backbones.errors import UserError

BASES = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'dino': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'yolox': 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'yolov3': 'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'fcos': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
}
ITERATIONS = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'


@cache
def read(name: str) -> Config:
    return read_by_name(name)


def base(name: str) -> Config:
    return deepcopy(read(BASES.get(name, name)))


def per_epoch(config: Config, images: int) -> int:
    return -(-images // config.train_dataloader.batch_size)


def curve(config: Config, images: int) -> list[float]:
    """The rate of every iteration, as mmengine's schedulers give it."""
    length = per_epoch(config, images)
    rate = config.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedulers = []
    for step in deepcopy(config.param_scheduler):
        kind = PARAM_SCHEDULERS.get(step.pop('type'))
        if step.pop('convert_to_iter_based', False):
            step['epoch_length'] = length
            schedulers.append(kind.build_iter_from_epoch(optimizer, **step))
        else:
            schedulers.append(kind(optimizer, **step))
    optimizer.step()
    found = []
    for _ in range(config.train_cfg.max_epochs):
        for _ in range(length):
            found.append(optimizer.param_groups[0]['lr'])
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return found


def require_sensible(config: Config, rates: list[float]) -> None:
    rate, epochs = config.optim_wrapper.optimizer.lr, config.train_cfg.max_epochs
    top = next(i for i, value in enumerate(rates) if value >= 0.99 * rate)
    assert top <= max(len(rates) / 3, 1)
    assert max(rates) == pytest.approx(rate, rel=0.01)
    assert 1 <= config.train_cfg.val_interval <= epochs
    assert 1 <= config.default_hooks.checkpoint.interval <= max(epochs, 1)
    for step in config.param_scheduler:
        assert all(0 < point < epochs for point in step.get('milestones', ()))
        assert step.get('begin', 0) < step.get('end', math.inf)
        # A cosine comes to its end; that of YOLOX's own config starts late.
        assert step.get('begin', 0) + step.get('T_max', 0) <= epochs
    for hook in config.get('custom_hooks', ()):
        assert hook.get('switch_epoch', 1) >= 1
        assert hook.get('switch_epoch', 0) < max(epochs, 2)
        assert 1 <= hook.get('num_last_epochs', 1) <= max(epochs / 2, 1)


@pytest.mark.parametrize('images', [20, 82, 700])
@pytest.mark.parametrize('name', ['faster', 'yolox', 'rtmdet'])
def test_small_data_leaves_its_warm_up(name, images):
    config = base(name)
    old = config.train_cfg.max_epochs
    fit_schedule(config, images, None)
    epochs = config.train_cfg.max_epochs
    assert epochs >= old
    count = epochs * per_epoch(config, images)
    assert count >= LEAST_ITERATIONS or epochs == MOST_EPOCHS
    if epochs > old:
        assert 9 <= epochs / config.train_cfg.val_interval <= 11
    if count < 20_000:
        require_sensible(config, curve(config, images))


@pytest.mark.slow
@pytest.mark.parametrize('epochs', [None, 1, 2, 3, 7, 24, 100])
@pytest.mark.parametrize('images', [3, 20, 82, 300])
@pytest.mark.parametrize('name', BASES)
def test_every_schedule_rises_to_the_rate_and_ends_in_time(name, images, epochs):
    config = base(name)
    fit_schedule(config, images, epochs)
    if epochs is not None:
        assert config.train_cfg.max_epochs == epochs
    require_sensible(config, curve(config, images))


@pytest.mark.parametrize('name', ['faster', 'yolox'])
def test_a_few_epochs_that_are_asked_for(name):
    for epochs in (1, 2, 5):
        config = base(name)
        assert 'as asked for' in fit_schedule(config, 82, epochs)
        require_sensible(config, curve(config, 82))


def test_milestones_and_mosaic_keep_their_share():
    config = base('faster')
    fit_schedule(config, None, 24)
    assert config.param_scheduler[1].milestones == [16, 22]
    assert config.param_scheduler[0].end == 500
    config = base('yolox')
    fit_schedule(config, None, 100)
    warm_up, cosine, rest = config.param_scheduler
    assert (warm_up.end, cosine.begin) == (2, 2)
    assert (cosine.T_max, cosine.end, rest.begin, rest.end) == (95, 95, 95, 100)
    assert config.custom_hooks[0].num_last_epochs == 5
    assert config.train_cfg.val_interval == 10
    assert config.default_hooks.checkpoint.interval == 10
    config = base('rtmdet')
    fit_schedule(config, None, 30)
    assert config.custom_hooks[1].switch_epoch == 28
    assert config.train_cfg.dynamic_intervals == [(28, 1)]
    assert config.param_scheduler[1].T_max == 15


@pytest.mark.parametrize('name', ['faster', 'yolox', 'rtmdet', 'dino'])
def test_data_as_large_as_that_of_the_base_changes_nothing(name):
    config = base(name)
    assert fit_schedule(config, 118_287, None) == ''
    assert config.to_dict() == base(name).to_dict()


def test_nothing_is_known_of_the_data():
    config = base('faster')
    assert fit_schedule(config, None, None) == ''
    assert config.to_dict() == base('faster').to_dict()
    # A shorter training keeps the share of its warm-up.
    fit_schedule(config, None, 3)
    assert config.param_scheduler[0].end == 125


def test_the_reason_is_told():
    said = fit_schedule(base('faster'), 82, None)
    assert '82 images, 41 iterations an epoch: 98 epochs instead of 12' in said
    assert 'warm-up to 401 instead of 500' in said
    # 32 images at a time are 900 iterations in 300 epochs.
    assert '--batch 7 makes more of them' in fit_schedule(base('rtmdet'), 82, None)


def test_a_training_by_iterations():
    config = base(ITERATIONS)
    fit_schedule(config, 100, None)
    # 50 iterations an epoch, 300 times.
    assert config.train_cfg.max_iters == 15_000
    assert config.train_cfg.val_interval == 1500
    assert config.train_cfg.dynamic_intervals[0][1] == 15_000
    assert config.param_scheduler.milestones == [13333, 14444]
    config = base(ITERATIONS)
    fit_schedule(config, 100, 10)
    assert config.train_cfg.max_iters == 500
    with pytest.raises(UserError, match=r'--epochs.*368750 iterations.*--data'):
        fit_schedule(base(ITERATIONS), None, 10)


@pytest.mark.parametrize('images', [100, 1000, 10_000])
def test_a_schedule_by_iterations_goes_on_where_the_warm_up_ends(images):
    config = Config(
        dict(
            train_dataloader=dict(batch_size=2),
            train_cfg=dict(max_epochs=10),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, begin=0, end=500),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=500, end=9000),
            ],
        )
    )
    fit_schedule(config, images, None)
    ends = [(step.begin, step.end) for step in config.param_scheduler]
    if images == 10_000:
        assert ends == [(0, 500), (500, 9000)]
    else:
        # 80 epochs of 50 iterations, or 10 of 500.
        total = 4000 if images == 100 else 5000
        assert ends == [(0, total // 10), (total // 10, total)]


def test_an_open_end_stays_open():
    config = base('faster')
    config.param_scheduler[1].end = None
    fit_schedule(config, 82, None)
    step = config.param_scheduler[1]
    assert (step.end, step.milestones) == (None, [65, 90])


def test_no_length_to_change():
    config = Config(dict(train_dataloader=dict(batch_size=2)))
    assert fit_schedule(config, 10, None) == ''
    with pytest.raises(UserError, match='max_epochs=3'):
        fit_schedule(config, 10, 3)
