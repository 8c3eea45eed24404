"""What a run shows while it goes on; the bar itself is tested in test_tools.py."""

import subprocess
import sys

import pytest
from mmengine.config import Config

from mmdet_backbones.engine.display import add_tensorboard

BACKEND = dict(type='TensorboardVisBackend')
LOCAL = dict(type='LocalVisBackend')


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Only the search for the package is imitated: its name can be found."""
    (tmp_path / 'tensorboard').mkdir()
    (tmp_path / 'tensorboard' / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)


def test_tensorboard_is_added_where_it_is_installed(installed):
    drawer = dict(type='DetLocalVisualizer', name='visualizer')
    cfg = Config(dict(visualizer=dict(drawer, vis_backends=[LOCAL])))
    add_tensorboard(cfg)
    assert cfg.visualizer == dict(drawer, vis_backends=[LOCAL, BACKEND])
    add_tensorboard(cfg)
    assert cfg.visualizer.vis_backends == [LOCAL, BACKEND]


def test_a_config_without_visualizer_gets_mmengines(installed):
    cfg = Config(dict())
    add_tensorboard(cfg)
    assert cfg.visualizer == dict(type='Visualizer', vis_backends=[LOCAL, BACKEND])


def test_nothing_changes_where_it_is_not(monkeypatch):
    monkeypatch.setattr('mmdet_backbones.engine.display.find_spec', lambda name: None)
    cfg = Config(dict(visualizer=dict(type='Visualizer')))
    add_tensorboard(cfg)
    assert cfg.visualizer == dict(type='Visualizer')


def test_looking_for_a_hook_imports_no_plots():
    """The first look-up of a hook imports them all."""
    code = (
        'import sys, mmdet_backbones.registry as r; r.HOOKS.import_from_location(); '
        "assert 'matplotlib.figure' not in sys.modules"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
