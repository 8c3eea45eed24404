"""Configs as people write them, after patterns of public repositories: no false error.

Half of them have one mistake each, which their first line names. The data is synthetic.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from cures import Draft
from mmengine.config import Config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of

WILD = sorted((Path(__file__).parent / 'wild').glob('*.py'))
CLASSES = ('leaf', 'stem', 'flower')
QUICK = {
    'faster-rcnn_swin-t_momentum-of-sgd',
    'rtmdet-tiny_30-epochs',
    'tood_r50_optim-wraper',
    'yolov3_mobilenetv2_voc',
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Annotations of 120 images to train on and 40 to measure on, without images."""
    folder = tmp_path_factory.mktemp('wild')
    for split, count in (('train', 120), ('val', 40)):
        path = folder / f'data/leaves/annotations/{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco(count)))
        (folder / f'data/leaves/{split}').mkdir()
    lists = folder / 'data/voc/ImageSets/Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('\n'.join(map(str, range(120))))
    return folder


def coco(count):
    box = dict(bbox=[10, 10, 60, 60], area=3600, iscrowd=0)
    sizes = dict(height=480, width=640)
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', **sizes) for i in range(count)],
        annotations=[
            dict(box, id=i, image_id=i, category_id=1 + i % 3) for i in range(count)
        ],
        categories=[dict(id=1 + i, name=name) for i, name in enumerate(CLASSES)],
    )


def planted_in(path):
    """Rule and key of the mistake in a config; None if it is sound."""
    first = path.read_text().partition('\n')[0]
    if first == '# Sound.':
        return None
    rule, key = first.removeprefix('# Planted: ').rsplit(' ', 1)
    return rule, key


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(
            path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow
        )
        for path in WILD
    ],
)
def test_no_false_error_and_no_missed_one(path, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    planted, config = planted_in(path), Config.fromfile(path)
    # Servers would be asked whether they have the weights: those are left out.
    findings = check_config(config)
    told = [f for f in findings if f.severity != 'note']
    if planted is None:
        assert told == [], describe(findings)
        return
    assert {f.rule for f in told} == {planted[0]}, describe(findings)
    assert planted[1] in {f.key for f in told}, describe(findings)
    names = runpy.run_path(str(path))
    own = {k: v for k, v in names.items() if not k.startswith('__')}
    draft = Draft(tmp_path, own.pop('_base_'), own)
    for finding in told:
        assert finding.cure or finding.remove
        for text in finding.cure:
            draft.write(text)
        for key in finding.remove:
            draft.remove(key)
    after = [f for f in check_config(draft.read()) if f.severity != 'note']
    assert after == [], describe(after)


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', [p for p in WILD if planted_in(p) is None], ids=lambda path: path.stem
)
def test_sound_ones_take_a_step(path, data, monkeypatch):
    monkeypatch.chdir(data)
    config = Config.fromfile(path)
    # Nobody is asked for weights here.
    config.model.backbone.pop('pretrained', None)
    config.model.backbone.init_cfg = None
    for name, trained in (('frozen_stages', -1), ('norm_eval', False)):
        if name in config.model.backbone:
            config.model.backbone[name] = trained
    config.load_from = None
    findings = errors_of(check_config(config, fast=False))
    assert findings == [], describe(findings)


def test_half_of_them_are_sound():
    sound = [path for path in WILD if planted_in(path) is None]
    assert len(WILD) >= 20
    assert len(sound) in range(len(WILD) // 2 - 1, len(WILD) // 2 + 2)
    assert {path.stem for path in WILD} >= QUICK
