"""Configs of other packages read as data."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_backbones.catalog.config_reader import UnreadableError, read_model_part


def zoo(package: str) -> list[Path]:
    root = Path(find_spec(package).origin).parent / '.mim' / 'configs'
    return sorted(path for path in root.rglob('*.py') if '_base_' not in path.parts)


def as_mmengine_reads(path: Path) -> dict | None:
    part = Config.fromfile(path).get('model', {}).get('backbone')
    return part.to_dict() if hasattr(part, 'to_dict') else None


@pytest.mark.parametrize('package', ['mmpretrain', 'mmdet'])
def test_reads_what_mmengine_reads(package):
    checked = 0
    for path in random.Random(0).sample(zoo(package), 15):
        try:
            expected = as_mmengine_reads(path)
        except Exception:  # of mmengine's 0.10.7 some configs of the zoo are too much
            continue
        if expected is not None:
            assert read_model_part(path, 'backbone') == expected, path
            checked += 1
    assert checked > 5


def test_nothing_is_executed(tmp_path):
    base, path = tmp_path / 'base.py', tmp_path / 'net.py'
    base.write_text(
        "width = 3\nmodel = dict(head=build(), backbone=dict(type='A', depth=2 * width,"
        ' keep=dict(x=1, y=[1, (2, -3)])))\n'
    )
    path.write_text(
        "_base_ = ['base.py']\nopen('made', 'w')\nraise SystemExit(3)\n"
        "other = open('made', 'w')\nmodel = dict(backbone=dict(keep=dict(x=5)))\n"
    )
    read = read_model_part(path, 'backbone')
    assert read == dict(type='A', depth=6, keep=dict(x=5, y=[1, (2, -3)]))
    assert read_model_part(path, 'neck') is None
    assert not Path('made').exists()


def test_delete_forgets_the_base(tmp_path):
    (tmp_path / 'base.py').write_text("model = dict(backbone=dict(type='A', depth=1))")
    path = tmp_path / 'net.py'
    path.write_text(
        "_base_ = 'base.py'\nmodel = dict(backbone=dict(_delete_=True, type='B'))"
    )
    assert read_model_part(path, 'backbone') == dict(type='B')


def test_what_only_running_would_give_is_an_error(tmp_path):
    path = tmp_path / 'net.py'
    path.write_text('depth = find()\nmodel = dict(backbone=dict(depth=depth))')
    with pytest.raises(UnreadableError, match='depth'):
        read_model_part(path, 'backbone')
