"""Sections beside the model: names, arguments, validation."""

import pytest
from mmengine.config import Config
from planted import R18_FPN, RETINANET, load

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import Finding, describe, errors_of
from mmdet_backbones.check.sections import (
    check_names,
    check_sections,
    check_validation,
)
from mmdet_backbones.detector_config.detector import DetectorConfig


def read(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


@pytest.mark.parametrize(
    ('typed', 'meant', 'value'),
    [
        ('optim_wraper', 'optim_wrapper', dict(optimizer=dict(lr=0.1))),
        ('train_dataloder', 'train_dataloader', dict(batch_size=4)),
        ('defualt_hooks', 'default_hooks', dict(logger=dict(interval=1))),
        ('param_schedulers', None, []),
        ('custom_import', 'custom_imports', dict(imports=['x'])),
        ('load_form', 'load_from', 'a.pth'),
        ('modle', 'model', dict(type='RetinaNet')),
        ('find_unused_parameter', 'find_unused_parameters', True),
    ],
)
def test_names_that_nothing_reads(typed, meant, value, tmp_path):
    cfg = read(tmp_path, f'{typed} = {value!r}\n# {typed} is told\n')
    found = [*check_names(cfg)]
    if meant is None:
        assert found == []  # more than one of a thing that is there once
        return
    (told,) = found
    assert (told.rule, told.severity, told.remove) == ('name', 'error', (typed,))
    assert told.cure == (f'{meant} = {value!r}',)


def test_names_of_one_s_own_are_left_alone(tmp_path):
    text = """
img_scale = (640, 640)
backend_args = None
num_classes = 3
max_epochs = 30
base_lr = 0.01
dataset_type = 'CocoDataset'
train_pipeline = []
test_pipeline = []
tta_model = dict(type='DetTTAModel')
val_evaluator_2 = dict(type='CocoMetric')
val_dataloaders = []
model_cfg = dict(type='RetinaNet')
model = model_cfg
optimizer = dict(type='SGD', lr=base_lr)
optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer)
"""
    assert [*check_names(read(tmp_path, text))] == []
    # As it is dumped into a work folder, where variables stand once.
    dumped = read(tmp_path, read(tmp_path, text).pretty_text)
    assert [*check_names(dumped)] == []


def test_names_of_mmdet_2_are_told_with_those_of_mmdet_3(tmp_path):
    text = "lr_config = dict(policy='step', step=[8, 11])\nrunner = dict(max_epochs=9)"
    found = [*check_names(read(tmp_path, text))]
    assert [(f.severity, f.remove) for f in found] == [
        ('warning', ('lr_config',)),
        ('warning', ('runner',)),
    ]
    assert 'write param_scheduler instead' in found[0].problem


def test_a_typing_error_is_found_where_the_right_name_is_inherited(tmp_path):
    cfg = load(tmp_path, RETINANET, model=R18_FPN, train_cgf=dict(max_epochs=24))
    (told,) = errors_of(check_config(cfg, num_gpus=8))
    assert told.key == 'train_cgf'
    assert told.cure == ('train_cfg.max_epochs = 24',)
    assert 'what train_cfg says of it goes on to hold' in told.problem


def test_a_model_that_is_misspelt(tmp_path):
    found = check_config(read(tmp_path, "modle = dict(type='RetinaNet')"))
    assert [(f.rule, f.severity) for f in found] == [
        ('name', 'error'),
        ('model', 'warning'),
    ]


@pytest.mark.parametrize(
    ('settings', 'key', 'told', 'cure', 'remove'),
    [
        (
            dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4))),
            'optim_wrapper.optimizer',
            'AdamW takes no argument momentum, inherited from the SGD of the base',
            ('optim_wrapper.optimizer._delete_ = True',),
            (),
        ),
        (
            dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=9000)),
            'train_cfg',
            'takes no argument max_epochs, inherited from the EpochBasedTrainLoop',
            ('train_cfg._delete_ = True',),
            (),
        ),
        (
            dict(optim_wrapper=dict(clip_gard=dict(max_norm=35))),
            'optim_wrapper',
            'OptimWrapper takes no argument clip_gard; clip_grad is meant',
            ("optim_wrapper.clip_grad = {'max_norm': 35}",),
            ('optim_wrapper.clip_gard',),
        ),
        (
            dict(default_hooks=dict(logger=dict(intervall=10))),
            'default_hooks.logger',
            'LoggerHook takes no argument intervall',
            (),
            ('default_hooks.logger.intervall',),
        ),
        (
            dict(param_scheduler=[dict(type='MultiStepLR', milestone=[8, 11])]),
            'param_scheduler.0',
            'milestones is meant',
            ('param_scheduler.0.milestones = [8, 11]',),
            ('param_scheduler.0.milestone',),
        ),
        (
            dict(custom_hooks=[dict(type='EMAHok')]),
            'custom_hooks.0',
            "type='EMAHok' is not known to mmdet (hook). Nearest: EMAHook",
            (),
            (),
        ),
        (
            dict(train_dataloader=dict(dataset=dict(tst_mode=True))),
            'train_dataloader.dataset',
            'test_mode is meant',
            ('train_dataloader.dataset.test_mode = True',),
            ('train_dataloader.dataset.tst_mode',),
        ),
    ],
)
def test_arguments_that_nothing_takes(settings, key, told, cure, remove, tmp_path):
    cfg = load(tmp_path, RETINANET, **settings)
    (finding,) = check_sections(DetectorConfig(cfg))
    assert (finding.key, finding.severity) == (key, 'error')
    assert told in finding.problem
    assert finding.remove == remove
    assert finding.cure == cure


def validation(**settings):
    parts = dict(
        val_dataloader=dict(batch_size=1),
        val_evaluator=dict(type='CocoMetric'),
        val_cfg=dict(type='ValLoop'),
        train_dataloader=dict(batch_size=2),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1),
    )
    return DetectorConfig(Config({**parts, **settings}))


@pytest.mark.parametrize(
    ('settings', 'key', 'severity', 'cure'),
    [
        (dict(val_cfg=None), 'val_cfg', 'error', "val_cfg = {'type': 'ValLoop'}"),
        (
            dict(val_evaluator=None, test_evaluator=dict(type='VOCMetric'),
                 test_dataloader=dict(), test_cfg=dict(type='TestLoop')),
            'val_evaluator', 'error', "val_evaluator = {'type': 'VOCMetric'}",
        ),
        (dict(val_dataloader=None), 'val_dataloader', 'error', 'val_cfg = None'),
        (
            dict(train_cfg=dict(max_epochs=12, val_interval=50)),
            'train_cfg.val_interval', 'warning', 'train_cfg.val_interval = 1',
        ),
        (
            dict(train_cfg=dict(max_iters=9000, val_interval=10000)),
            'train_cfg.val_interval', 'warning', 'train_cfg.val_interval = 900',
        ),
        (
            dict(train_cfg=dict(max_epochs=12, val_begin=20)),
            'train_cfg.val_begin', 'warning', 'train_cfg.val_begin = 1',
        ),
        (
            dict(val_cfg=None, val_dataloader=None, val_evaluator=None,
                 default_hooks=dict(checkpoint=dict(save_best='auto'))),
            'default_hooks.checkpoint.save_best', 'warning',
            'default_hooks.checkpoint.save_best = None',
        ),
        (
            dict(val_cfg=None, val_dataloader=None, val_evaluator=None,
                 custom_hooks=[dict(type='EarlyStoppingHook', monitor='x')]),
            'custom_hooks', 'warning', 'custom_hooks = []',
        ),
    ],
)  # fmt: skip
def test_a_validation_that_does_not_run(settings, key, severity, cure):
    (told,) = check_validation(validation(**settings))
    assert (told.rule, told.key, told.severity) == ('validation', key, severity)
    assert cure in told.cure


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(val_cfg=None, val_dataloader=None, val_evaluator=None),
        dict(train_cfg=dict(max_iters=500)),
        dict(train_dataloader=None, train_cfg=dict(max_epochs=1, val_interval=9)),
    ],
)
def test_a_sound_validation_is_not_accused(settings):
    assert [*check_validation(validation(**settings))] == []


def test_what_a_check_comes_to_stands_first():
    def of(severity):
        return Finding('rule', severity, 'text', (), severity)

    error, warning, note = of('error'), of('warning'), of('note')
    assert describe([]) == 'sound: nothing is wrong'
    assert describe([note, warning]).startswith('sound: 1 warning, 1 note\n[warning]')
    both = describe([warning, error, of('error'), warning])
    assert both.startswith('2 errors, 2 warnings: will not train as it is meant to\n')
