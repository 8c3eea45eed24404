"""Swaps of bases that are odd, and into files that cannot be."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from mmengine.config import Config
from odd_configs import INHERITED, NEW_STYLE
from small_detectors import OURS

from mmdet_backbones.check.config import check_config
from mmdet_backbones.detector_config.text import render
from mmdet_backbones.errors import UserError
from mmdet_backbones.swap import swapping
from mmdet_backbones.swap.swapping import SwapOptions, save, swap_backbone

TOOL = 'tools/swap_backbone.py'


def swapped(tmp_path: Path, text: str, name: str = 'timm/resnet18') -> str:
    (tmp_path / 'base.py').write_text(text)
    base = str(tmp_path / 'base.py')
    return swap_backbone(SwapOptions(base, name, tmp_path / 'new.py'))


@pytest.mark.parametrize('frozen', [{}, dict(frozen_stages=None), dict(freeze_at=2)])
def test_what_a_net_of_ours_freezes_is_kept(tmp_path, frozen):
    model = {**OURS, 'backbone': {**OURS['backbone'], **frozen}}
    text = swapped(tmp_path, f'{INHERITED}model = {model!r}\n')
    assert ('frozen_stages=1' in text) == ('freeze_at' in frozen)


def test_a_base_in_the_new_style_gives_a_config_that_stands_by_itself(tmp_path):
    text = swapped(tmp_path, NEW_STYLE)
    assert '_base_ =' not in text
    cfg = Config.fromstring(text, '.py')
    assert cfg.model.backbone.type == 'mmdet_backbones.TIMMBackbone'
    assert cfg.model.neck.in_channels == [64, 128, 256, 512]
    assert cfg.model.bbox_head.num_classes == 3
    cfg.model.backbone.init_cfg = None
    assert [f for f in check_config(cfg) if f.severity == 'error'] == []


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('param_scheduler = 3', 'param_scheduler: it must be a dict, or a list'),
        ('model = dict(backbone=3)', 'model.backbone: it must be a dict'),
        ("model = dict(neck='FPN')", 'model.neck: it must be a dict'),
        ('model = dict(neck=dict(type=3))', 'model.neck.type: it must be the name'),
        (
            'model = dict(bbox_head=dict(anchor_generator=dict('
            "strides=[float('nan')])))",
            'anchor_generator.strides.0: it must be a number, got nan',
        ),
        ("model = dict(neck=dict(num_outs='x'))", 'takes a number'),
    ],
)
def test_values_that_cannot_be(tmp_path, text, words):
    with pytest.raises(UserError) as told:
        swapped(tmp_path, f'{INHERITED}{text}\n')
    assert words in str(told.value)


@pytest.mark.parametrize('name', ['a\nb.py', 'a\x1b.py', 'a\u2028b.py', 'a\0.py'])
def test_a_name_that_would_be_a_line_of_code(tmp_path, name):
    options = SwapOptions('mmdet::x.py', 'timm/resnet18', tmp_path / name)
    with pytest.raises(UserError, match='a name without control characters'):
        save(options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['file.txt/new.py', f'{"x" * 300}.py'])
def test_a_place_that_cannot_be(tmp_path, name):
    (tmp_path / 'file.txt').write_text('')
    (tmp_path / 'base.py').write_text(INHERITED)
    base = str(tmp_path / 'base.py')
    with pytest.raises(UserError, match='-o'):
        save(SwapOptions(base, 'timm/resnet18', tmp_path / name))


def test_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / 'base.py').write_text(INHERITED)
    options = SwapOptions(str(tmp_path / 'base.py'), 'timm/resnet18', tmp_path / 'n.py')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def swap_and_fill_the_disk(options):
        text = swap_backbone(options)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        return text

    monkeypatch.setattr(swapping, 'swap_backbone', swap_and_fill_the_disk)
    try:
        with pytest.raises(UserError, match='cannot be written'):
            save(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not (tmp_path / 'n.py').exists()


def test_an_error_that_the_check_finds_fails_the_command(tmp_path, run_tool):
    base = tmp_path / 'base.py'
    base.write_text(f'{INHERITED}model = dict(bbox_head=dict(num_classes=7))\n')
    out = tmp_path / 'new.py'
    done = run_tool(TOOL, str(base), 'timm/resnet18', '-o', str(out))
    assert done.returncode == 1
    assert '[error] classes' in done.stdout
    assert 'error: ' in done.stderr
    assert os.path.exists(out)


def test_numbers_that_python_does_not_spell():
    values = [float('nan'), float('inf'), float('-inf')]
    assert render(values) == "[float('nan'), float('inf'), float('-inf')]"
