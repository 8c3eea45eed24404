"""What tools/test.py refuses: a checkpoint that leaves any part at random values."""

from __future__ import annotations

import pytest
import torch
from small_detectors import HOSTS, build, save, small_config

from mmdet_backbones.check.start import require_loadable
from mmdet_backbones.errors import UserError


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config, and what a checkpoint of it holds."""
    config = small_config(tmp_path_factory.mktemp('trained'), HOSTS)
    return config, build(config).state_dict()


def without(part):
    return lambda weights: {k: v for k, v in weights.items() if part not in k}


def other_classes(weights):
    return {
        name: torch.cat([value, value]) if 'retina_cls' in name else value
        for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (without('neck'), '0 of 16 tensors of the neck'),
        (without('bbox_head'), 'of the heads would be loaded'),
        (without('retina_reg.bias'), 'bbox_head.retina_reg.bias'),
        (without('neck.fpn_convs.4.conv.bias'), 'neck.fpn_convs.4.conv.bias'),
        (without('backbone.layer2.0.bn1'), 'backbone.layer2.0.bn1'),
        (other_classes, 'a head of another number of classes'),
        (lambda weights: {}, 'holds no weights'),
        (lambda weights: [1], 'holds no weights'),
    ],
)
def test_a_part_without_weights_is_refused(trained, tmp_path, change, told):
    config, weights = trained
    config.load_from = save(tmp_path / 'x.pth', change(weights))
    with pytest.raises(UserError) as error:
        require_loadable(config)
    assert told in str(error.value)


@pytest.mark.parametrize('content', [None, 3, [1], 'x', {'a': 1}])
def test_a_file_of_something_else_is_refused(trained, tmp_path, content):
    config, _ = trained
    torch.save(content, tmp_path / 'x.pth')
    config.load_from = str(tmp_path / 'x.pth')
    with pytest.raises(UserError, match='holds no weights'):
        require_loadable(config)


def test_checkpoints_of_the_detector_are_taken(trained, tmp_path):
    config, weights = trained
    averaged = {f'module.{name}': value for name, value in weights.items()}
    torch.save(dict(weights), tmp_path / 'plain.pth')
    save(tmp_path / 'run.pth', weights)
    save(tmp_path / 'averaged.pth', weights, ema_state_dict=averaged)
    save(tmp_path / 'loss.pth', {**weights, 'bbox_head.loss_cls.x': torch.ones(1)})
    for path in tmp_path.glob('*.pth'):
        config.load_from = str(path)
        require_loadable(config)
