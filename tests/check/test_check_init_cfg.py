"""A bad ``init_cfg`` is one finding among all others, with the line that mends it."""

import pytest
from cures import applied
from planted import merged
from small_detectors import HOSTS, OURS, small_config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of

QUIET = dict(train_dataloader=None)
GOOD = dict(type='Pretrained', checkpoint='torchvision://resnet18')


@pytest.mark.parametrize(
    'model',
    [
        pytest.param(OURS, id='ours'),
        pytest.param(HOSTS, id='mmdet', marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ('init_cfg', 'told'),
    [
        ('torchvision://resnet18', "got 'torchvision://resnet18'"),
        (['torchvision://resnet18'], "got 'torchvision://resnet18'"),
        (dict(checkpoint='torchvision://resnet18'), 'a dict with a type'),
        (dict(GOOD, prefx='net'), 'no prefx (perhaps prefix)'),
        (dict(type='Pretrained'), 'checkpoint must be a path or an address'),
    ],
    ids=['text', 'a list', 'no type', 'a typo', 'no checkpoint'],
)
def test_all_is_found_at_once(model, init_cfg, told, tmp_path):
    model = merged(model, backbone=dict(init_cfg=init_cfg, frozen_stages=1))
    model = merged(model, neck=dict(in_channels=[1, 2, 3, 4]))
    config = small_config(tmp_path, model, **QUIET)
    findings = check_config(config)
    first = next(f for f in findings if f.key == 'model.backbone.init_cfg')
    assert told in first.problem
    rules = {finding.rule for finding in findings}
    assert 'channels' in rules, describe(findings)
    # Weights are meant, so nothing of it counts as random, unless nobody knows which.
    assert ('frozen and random' in rules) == (init_cfg == dict(type='Pretrained'))
    for finding in findings:
        config = applied(config, finding.cure)
    after = check_config(config)
    assert errors_of(after) == [], describe(after)


def test_terms_and_arguments_that_only_ours_know(tmp_path):
    terms = dict(GOOD, min_coverage=1.5, allow_missing='fc', prefix='')
    model = merged(OURS, backbone=dict(init_cfg=terms))
    config = small_config(tmp_path, model, **QUIET)
    (finding,) = errors_of(check_config(config))
    assert 'min_coverage must be from 0 to 1, got 1.5' in finding.problem
    assert 'allow_missing must be a list' in finding.problem
    assert errors_of(check_config(applied(config, finding.cure))) == []
    terms = dict(GOOD, min_coverage=0.5)
    config = small_config(
        tmp_path, merged(HOSTS, backbone=dict(init_cfg=terms)), **QUIET
    )
    (finding,) = errors_of(check_config(config))
    assert 'no min_coverage' in finding.problem


def test_every_part_is_looked_at(tmp_path):
    neck = dict(init_cfg='normal')
    config = small_config(tmp_path, merged(OURS, neck=neck), **QUIET)
    keys = [f.key for f in errors_of(check_config(config)) if f.rule == 'weights']
    assert 'model.neck.init_cfg' in keys


def test_the_config_is_left_as_it_is(tmp_path):
    model = merged(OURS, backbone=dict(init_cfg='timm://resnet18'))
    config = small_config(tmp_path, model, **QUIET)
    before = config.pretty_text
    check_config(config)
    assert config.pretty_text == before
