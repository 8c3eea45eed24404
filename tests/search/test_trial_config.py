"""The config of a trial: a swap's, with the rate and freezing that it wants."""

from __future__ import annotations

import pytest
import timm
import torch
from mmengine.config import Config
from squares import draw_squares

from mmdet_backbones.engine.lr_scaling import find_scale
from mmdet_backbones.search.trial_config import TrialSpec, write_trial_config
from mmdet_backbones.swap.swapping import SwapOptions, save

BASE = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
NET = 'timm/test_resnet'


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trial')
    data = folder / 'data'
    data.mkdir()
    weights = folder / 'net.pth'
    torch.save(timm.create_model('test_resnet').state_dict(), weights)
    return SwapOptions(
        BASE, NET, folder / 'trial.py', data=str(draw_squares(data)), size=(64, 64),
        epochs=2, checkpoint=str(weights), force=True,
    )  # fmt: skip


def written(options, **settings):
    path = write_trial_config(TrialSpec(NET, (64, 64), **settings), options)
    return path.read_text(), Config.fromfile(path)


def effective(config):
    """The rate that a training of one process begins to warm up to."""
    rate, scale = config.optim_wrapper.optimizer.lr, find_scale(config, 1)
    enabled = config.auto_scale_lr.get('enable', True)
    return rate * scale.factor if scale and enabled else rate


def test_as_the_recipe_says_it_is_what_a_swap_writes(options):
    text, _ = written(options)
    assert text == save(options).read_text()


@pytest.mark.parametrize('factor', [0.5, 2.5])
def test_the_rate_is_a_multiple_of_the_recipes(options, factor):
    _, recipe = written(options)
    _, moved = written(options, rate=factor)
    assert effective(moved) == pytest.approx(factor * effective(recipe), rel=1e-3)
    assert moved.model == recipe.model


def test_stages_are_frozen_as_wanted(options):
    frozen = {}
    for freezing in ('recipe', 'nothing', 'more'):
        _, config = written(options, freezing=freezing)
        frozen[freezing] = config.model.backbone.get('frozen_stages', -1)
    assert frozen['nothing'] == -1
    assert frozen['more'] == frozen['recipe'] + 1
