"""swap: how much of the new backbone trains."""

import functools

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils
from planted import RETINANET

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import errors_of
from mmdet_backbones.errors import UserError
from mmdet_backbones.swap.options import SwapOptions
from mmdet_backbones.swap.swapping import save


@pytest.fixture(autouse=True)
def _metafiles_once(monkeypatch):
    """mmengine reads a hundred of mmdet's metafiles for every base otherwise."""
    monkeypatch.setattr(config_utils, 'load', functools.cache(config_utils.load))


def swapped(tmp_path, name, base=RETINANET, **options):
    path = save(SwapOptions(base=base, name=name, out=tmp_path / 'new.py', **options))
    return Config.fromfile(path)


@pytest.mark.parametrize('name', ['timm/resnet18', 'torchvision/swin_t'])
def test_the_whole_backbone_is_frozen_where_that_is_asked_for(tmp_path, name):
    config = swapped(tmp_path, name, frozen_stages='all')
    assert config.model.backbone.frozen_stages == 'all'
    assert errors_of(check_config(config, training=False)) == []


def test_a_base_that_is_frozen_as_a_whole_stays_so(tmp_path):
    swapped(tmp_path, 'timm/resnet18', frozen_stages='all')
    base = (tmp_path / 'new.py').rename(tmp_path / 'base.py')
    config = swapped(tmp_path, 'timm/convnext_atto', base=str(base))
    assert config.model.backbone.frozen_stages == 'all'
    trained = swapped(
        tmp_path, 'timm/convnext_atto', base=str(base), frozen_stages=-1, force=True
    )
    assert trained.model.backbone.get('frozen_stages', -1) == -1


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('timm/resnet18', dict(frozen_stages='all', no_weights=True), 'leave one out'),
        (
            'timm/resnet18',
            dict(frozen_stages=9),
            'write --frozen-stages 4, or --frozen-stages all',
        ),
        ('mmdet/ResNet-50', dict(frozen_stages='all'), 'a net of another source'),
    ],
)
def test_what_cannot_be_frozen_is_told(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        swapped(tmp_path, name, **options)
