"""Schedules of another training: found, and gone once the lines are written."""

import json

import pytest
from cures import applied
from mmengine.config import Config

from mmdet_backbones.check.annotations import epoch_length
from mmdet_backbones.check.schedule import check_schedule, length_of
from mmdet_backbones.detector_config.detector import DetectorConfig

WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
FALLS = dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11])
COSINE = dict(type='CosineAnnealingLR', begin=5, T_max=285, end=285, eta_min=1e-5)
LAST = dict(type='ConstantLR', factor=1, begin=285, end=300)
QUADRATIC = dict(type='mmdet.QuadraticWarmupLR', end=5, convert_to_iter_based=True)
YOLOX = [QUADRATIC, dict(COSINE, convert_to_iter_based=True), LAST]
EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=12)
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=20000)
BY_ITERATION = dict(FALLS, by_epoch=False, end=20000, milestones=[14000, 18000])
LONG = dict(EPOCHS, max_epochs=300)
# 1000 iterations in an epoch of one process.
LOADER = dict(batch_size=2, num_batch_per_epoch=1000)


def config(schedule, loop=EPOCHS, **optimizer):
    optimizer = dict(type='SGD', lr=0.02, **optimizer)
    return Config(
        dict(
            model=dict(type='RetinaNet'),
            train_cfg=loop,
            train_dataloader=LOADER,
            param_scheduler=schedule,
            optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
        )
    )


def found(cfg):
    return [*check_schedule(DetectorConfig(cfg))]


@pytest.mark.parametrize(
    ('schedule', 'loop'),
    [
        ([WARM_UP, FALLS], EPOCHS),
        (FALLS, EPOCHS),
        ([], EPOCHS),
        (None, EPOCHS),
        ([WARM_UP, BY_ITERATION], ITERATIONS),
        (YOLOX, LONG),
        ([dict(type='CosineAnnealingLR', T_max=12)], EPOCHS),
        ([dict(type='CosineAnnealingLR', begin=6, T_max=6, end=12)], EPOCHS),
        ([dict(type='LinearLR', start_factor=1.0, end_factor=0.01, end=12)], EPOCHS),
        ([dict(type='PolyLR', power=0.9, by_epoch=False, end=20000)], ITERATIONS),
        ([dict(type='CosineAnnealingLR', T_max=10)], dict(EPOCHS, max_epochs=10)),
        ([dict(type='ExponentialLR', gamma=0.9)], EPOCHS),
        (dict(generator=[WARM_UP], other=[FALLS]), EPOCHS),
        # Its end is that of the training where none is named.
        ([dict(type='MultiStepLR', milestones=[8, 11])], EPOCHS),
        # A try of one epoch.
        ([dict(WARM_UP, end=50)], dict(EPOCHS, max_epochs=1)),
    ],
)
def test_sound_schedules_are_not_accused(schedule, loop):
    assert found(config(schedule, loop)) == []


@pytest.mark.parametrize(
    ('schedule', 'loop', 'told', 'cure'),
    [
        (
            [dict(WARM_UP, end=5000), FALLS],
            EPOCHS,
            'the warm-up takes 5000 iterations, and the training has 12000',
            'param_scheduler.0.end = 1200',
        ),
        (
            [dict(WARM_UP, end=20000), FALLS],
            EPOCHS,
            'it ends at 0.6 times the learning rate',
            'param_scheduler.0.end = 1200',
        ),
        (
            # Without an end it lasts as long as the training.
            [{k: v for k, v in WARM_UP.items() if k != 'end'}, FALLS],
            EPOCHS,
            'the warm-up takes 12000 iterations',
            'param_scheduler.0.end = 1200',
        ),
        (
            YOLOX,
            dict(LONG, max_epochs=10),
            'the warm-up takes 5 epochs, and the training has 10',
            'param_scheduler.1.begin = 1',
        ),
        (
            YOLOX,
            dict(LONG, max_epochs=30),
            'ConstantLR begins at 285, past the end of the training of 30 epochs',
            'param_scheduler.2.begin = 28',
        ),
        (
            [WARM_UP, dict(FALLS, end=24, milestones=[16, 22])],
            EPOCHS,
            'would fall at 16, 22, past the end of the training of 12 epochs',
            'param_scheduler.1.milestones = [8, 11]',
        ),
        (
            [WARM_UP, dict(FALLS, milestones=[16, 22])],
            dict(EPOCHS, max_epochs=24),
            'MultiStepLR ends at 12, and its rate would fall at 16, 22',
            'param_scheduler.1.end = 24',
        ),
        (
            [WARM_UP, dict(BY_ITERATION, milestones=[60000, 80000], end=90000)],
            ITERATIONS,
            'would fall at 60000, 80000',
            'param_scheduler.1.milestones = [13333, 17778]',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=300)],
            EPOCHS,
            'CosineAnnealingLR ends at 300, far past the end',
            'param_scheduler.0.T_max = 12',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=100, end=100)],
            LONG,
            'CosineAnnealingLR ends at 100, far before the end',
            'param_scheduler.0.T_max = 300',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=100)],
            LONG,
            'is through at 100 and rises again',
            'param_scheduler.0.T_max = 300',
        ),
        (
            [dict(type='PolyLR', by_epoch=False, end=90000)],
            ITERATIONS,
            'PolyLR ends at 90000, far past the end',
            'param_scheduler.0.end = 20000',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=12, eta_min=0.05)],
            EPOCHS,
            'grows from 0.02 to eta_min=0.05',
            'param_scheduler.0.eta_min = 0.001',
        ),
        (
            [WARM_UP, FALLS],
            dict(EPOCHS, max_epochs=1),
            'past the end of the training of 1 epochs',
            'param_scheduler.1.milestones = []',
        ),
    ],
)
def test_a_schedule_of_another_training(schedule, loop, told, cure):
    cfg = config(schedule, loop)
    (finding,) = found(cfg)
    assert (finding.rule, finding.severity) == ('schedule', 'warning')
    assert told in finding.problem
    assert cure in finding.cure, finding
    assert found(applied(cfg, finding.cure)) == []


@pytest.mark.parametrize(
    ('schedule', 'loop', 'told', 'cure'),
    [
        (
            [WARM_UP, dict(FALLS, milestones=[14000, 18000], end=20000)],
            ITERATIONS,
            'by_epoch is True if it is left out',
            ('param_scheduler.1.by_epoch = False',),
        ),
        (
            [WARM_UP, FALLS],
            ITERATIONS,
            'a training by iterations is one epoch',
            (
                'param_scheduler.1.end = 20000',
                'param_scheduler.1.milestones = [13333, 18333]',
                'param_scheduler.1.by_epoch = False',
            ),
        ),
        (
            [dict(WARM_UP, end_factor=0.001), FALLS],
            EPOCHS,
            'ends at 0.001 times the learning rate',
            ('param_scheduler.0.end_factor = 1.0',),
        ),
    ],
)
def test_rates_that_stay_where_they_are(schedule, loop, told, cure):
    cfg = config(schedule, loop)
    (finding,) = found(cfg)
    assert finding.severity == 'error'
    assert told in finding.problem
    assert finding.cure == cure
    assert found(applied(cfg, finding.cure)) == []


def test_a_rate_of_zero():
    cfg = config([WARM_UP, FALLS])
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0)
    cfg.auto_scale_lr = dict(base_batch_size=64)
    (finding,) = found(cfg)
    assert finding.severity == 'error'
    assert finding.cure == ('optim_wrapper.optimizer.lr = 0.0002',)
    assert found(applied(cfg, finding.cure)) == []


def test_a_pipeline_that_is_switched_after_the_end():
    cfg = config([WARM_UP, FALLS])
    hook = dict(type='PipelineSwitchHook', switch_epoch=280, switch_pipeline=[])
    cfg.custom_hooks = [dict(type='EMAHook'), hook]
    (finding,) = found(cfg)
    assert finding.cure == ('custom_hooks.1.switch_epoch = 11',)
    assert found(applied(cfg, finding.cure)) == []


def test_epochs_are_counted_in_the_annotations(tmp_path):
    images = [dict(id=i, file_name=f'{i}.jpg') for i in range(100)]
    boxes = [dict(image_id=i // 2, category_id=1) for i in range(80)]
    content = dict(images=images, annotations=boxes, categories=[])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    (tmp_path / 'b.txt').write_text('1\n2\n\n3\n')
    coco = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json')
    filled = dict(coco, filter_cfg=dict(filter_empty_gt=True))
    voc = dict(type='VOCDataset', data_root=str(tmp_path), ann_file='b.txt')
    both = dict(type='ConcatDataset', datasets=[coco, voc])
    ten = dict(type='RepeatDataset', times=10, dataset=filled)
    balanced = dict(type='ClassBalancedDataset', dataset=coco)
    mixed = dict(type='MultiImageMixDataset', dataset=coco)
    for dataset, gpus, length in [
        (coco, 1, 25),
        (coco, 8, 4),
        (filled, 1, 10),
        (both, 1, 26),
        (ten, 2, 50),
        (mixed, 1, 25),
        (balanced, 1, None),
        (dict(coco, ann_file='absent.json'), 1, None),
        (dict(coco, indices=10), 1, None),
    ]:
        assert epoch_length(dict(batch_size=4, dataset=dataset), gpus) == length
    loader = dict(batch_size=3, dataset=coco, drop_last=True)
    assert epoch_length(loader, 1) == 33
    cfg = config([], EPOCHS)
    cfg.train_dataloader = loader
    assert length_of(cfg, 2).iterations == 12 * 16
    cfg.train_cfg = ITERATIONS
    assert length_of(cfg, 1).epochs == pytest.approx(20000 / 33)
