"""Values that cannot be: text for numbers, numbers for classes, NaN."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
from cures import applied
from odd_configs import RETINANET
from small_detectors import HOSTS, small_config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import errors_of
from mmdet_backbones.detector_config.values import faults_of, require_values
from mmdet_backbones.errors import UserError

OPTIMIZER = 'optim_wrapper.optimizer'
# Key, what is written there, and what was meant where that is plain.
FAULTS = [
    (f'{OPTIMIZER}.lr', 'fast', None),
    (f'{OPTIMIZER}.lr', '1e-4', 1e-4),
    (f'{OPTIMIZER}.lr', -0.1, None),
    (f'{OPTIMIZER}.lr', math.nan, None),
    (f'{OPTIMIZER}.lr', math.inf, None),
    (f'{OPTIMIZER}.lr', None, None),
    (f'{OPTIMIZER}.lr', [0.1], None),
    (f'{OPTIMIZER}.lr', True, None),
    (f'{OPTIMIZER}.momentum', '0.9', 0.9),
    (f'{OPTIMIZER}.weight_decay', {}, None),
    (f'{OPTIMIZER}.betas', 0.9, None),
    (f'{OPTIMIZER}.type', 3, None),
    (OPTIMIZER, dict(lr=0.1), None),
    ('param_scheduler.0', dict(begin=0), None),
    ('model.backbone', dict(depth=18), None),
    (OPTIMIZER, 'SGD', None),
    ('optim_wrapper.accumulative_counts', '2', 2),
    ('optim_wrapper.clip_grad', dict(max_norm='35'), 35),
    ('train_cfg.max_epochs', '3', 3),
    ('train_cfg.max_epochs', 0, None),
    ('train_cfg.max_epochs', 1.5, None),
    ('train_cfg.val_interval', -1, None),
    ('train_cfg.type', None, None),
    ('train_dataloader.batch_size', '2', 2),
    ('train_dataloader.batch_size', 2.0, None),
    ('train_dataloader.num_workers', -1, None),
    ('train_dataloader.dataset', 3, None),
    ('train_dataloader.dataset.ann_file', 3, None),
    ('param_scheduler', 'cosine', None),
    ('param_scheduler.0', 3, None),
    ('param_scheduler.0.begin', 'x', None),
    ('param_scheduler.1.milestones', 3, None),
    ('param_scheduler.1.milestones', ['8', 11], 8),
    ('default_hooks.checkpoint', 3, None),
    ('default_hooks.logger.interval', '50', 50),
    ('custom_hooks', [3], None),
    ('model', 'x', None),
    ('model.backbone', 'ResNet', None),
    ('model.neck', ['FPN'], None),
    ('model.neck.type', '', None),
    ('model.neck.type', [], None),
    ('model.bbox_head.anchor_generator.strides', [8, math.nan], None),
]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config that stands by itself."""
    return small_config(tmp_path_factory.mktemp('values'), HOSTS)


def put(config, key, value):
    content = deepcopy(config)
    *place, last = key.split('.')
    node = content
    for step in place:
        node = node[int(step) if isinstance(node, list) else step]
    node[int(last) if isinstance(node, list) else last] = value
    return content


@pytest.mark.parametrize(('key', 'value', 'meant'), FAULTS)
def test_a_value_that_cannot_be(config, key, value, meant):
    wrong = put(config, key, value)
    findings = check_config(wrong)
    assert {finding.rule for finding in findings} == {'values'}
    assert all(finding.key.startswith(key.rpartition('.0')[0]) for finding in findings)
    (finding,) = findings
    assert bool(finding.cure) == (meant is not None)
    if meant is not None:
        assert finding.cure[0].endswith(f' = {meant!r}')
        assert faults_of(applied(wrong, finding.cure)) == []
    with pytest.raises(UserError, match=r'it must be|it needs a type'):
        require_values(wrong)


def test_sound_values_are_not_accused(config):
    assert faults_of(config) == []


def test_text_for_a_number_of_a_class(config):
    for value, cure in (('5', ('model.neck.num_outs = 5',)), ('many', ())):
        wrong = put(config, 'model.neck.num_outs', value)
        found = [f for f in errors_of(check_config(wrong)) if f.rule == 'values']
        assert next(f.cure for f in found) == cure


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('{"images": [', 'is not JSON that can be read'),
        ('{"categories": [3]}', 'has categories that are no list of dicts'),
        ('{"images": {}}', 'has images that are no list'),
        (
            '{"images": [], "annotations": [], "categories": []}',
            'has no images: there is nothing to learn or measure',
        ),
        (
            '{"images": [{"id": 1, "file_name": "x"}], "annotations": [], '
            '"categories": []}',
            'has no annotations',
        ),
    ],
)
def test_annotations_that_cannot_be(config, tmp_path, content, words):
    (tmp_path / 'val.json').write_text(content)
    wrong = deepcopy(config)
    wrong.val_dataloader.dataset.update(data_root=str(tmp_path), ann_file='val.json')
    (finding,) = (f for f in check_config(wrong) if f.rule == 'data')
    assert words in finding.problem


@pytest.mark.parametrize('tool', ['check_config', 'print_lr'])
def test_tools_tell(tmp_path, run_tool, tool):
    path = tmp_path / 'odd.py'
    path.write_text(
        f"_base_ = {RETINANET!r}\noptim_wrapper = dict(optimizer=dict(lr='fast'))\n"
    )
    done = run_tool(f'tools/{tool}.py', str(path))
    assert done.returncode == 1
    assert f'{OPTIMIZER}.lr' in done.stdout + done.stderr
    assert "got 'fast'" in done.stdout + done.stderr
