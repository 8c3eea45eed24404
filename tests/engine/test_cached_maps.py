"""A training that computes the maps of its frozen backbone in the first epoch only."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small_detectors import OURS, merged, small_config
from squares import draw_squares

from mmdet_backbones.check.config import check_config
from mmdet_backbones.engine.cached_maps import CachedMapsHook
from mmdet_backbones.engine.steady_images import unsteady_images

LOADING = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
RESIZE = dict(type='Resize', scale=(128, 96), keep_ratio=True)
PACK = dict(type='PackDetInputs')


def training(tmp_path, pipeline, frozen='all', **settings) -> Config:
    (tmp_path / 'data').mkdir(exist_ok=True)
    root = tmp_path / 'data'
    root = root if (root / 'train.json').exists() else draw_squares(root)
    dataset = dict(
        _delete_=True,
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=('tree',)),
        pipeline=[*LOADING, *pipeline, PACK],
    )
    model = merged(OURS, backbone=dict(frozen_stages=frozen, init_cfg=None))
    model['bbox_head'] = dict(model['bbox_head'], num_classes=1)
    return small_config(
        tmp_path,
        model,
        train_dataloader=dict(
            dataset=dataset, batch_size=2, num_workers=0, persistent_workers=False
        ),
        work_dir=str(tmp_path / 'work'),
        randomness=dict(seed=0),
        train_cfg=dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2),
        **dict.fromkeys(
            ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg',
             'test_dataloader', 'test_evaluator')
        ),
        **settings,
    )  # fmt: skip


def hook(tmp_path):
    return dict(type='mmdet_backbones.CachedMapsHook', folder=str(tmp_path / 'maps'))


def run(config):
    config.log_level = 'ERROR'
    config.experiment_name = f'maps_{torch.randint(10**9, ())}'
    runner = Runner.from_cfg(config)
    torch.manual_seed(0)
    runner.train()
    return runner


def test_a_training_is_the_same_and_computes_each_image_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        CachedMapsHook,
        'after_train_epoch',
        lambda self, runner: told.append(
            (runner.model.backbone.map_cache.read,
             runner.model.backbone.map_cache.computed)
        ),
    )  # fmt: skip
    steady = [dict(RESIZE, keep_ratio=False)]
    plain = run(training(tmp_path, steady))
    kept = run(training(tmp_path, steady, custom_hooks=[hook(tmp_path)]))
    assert told == [(0, 8), (8, 8)]
    assert kept.model.backbone.map_cache is None
    states = plain.model.state_dict(), kept.model.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], msg=name)


@pytest.mark.parametrize(
    'pipeline',
    [
        [dict(RESIZE), dict(type='RandomFlip', prob=0.5)],
        [dict(type='RandomResize', scale=[(128, 96), (64, 48)], keep_ratio=True)],
        [RESIZE, dict(type='PhotoMetricDistortion'), dict(type='MyOwn')],
    ],
)
def test_images_that_change_are_refused_and_the_lines_mend_it(tmp_path, pipeline):
    config = training(
        tmp_path, pipeline, frozen=1, custom_hooks=[hook(tmp_path)], compile=True
    )
    with pytest.raises(ValueError, match='CachedMapsHook cannot cache maps') as error:
        CachedMapsHook('maps').before_run(_Runner(config))
    for part in ("frozen_stages = 'all'", 'compile = False', 'dataset.pipeline = ['):
        assert part in str(error.value)
    told = [f for f in check_config(config) if f.rule == 'cached maps']
    assert len(told) == 4
    for finding in told:
        (line,) = finding.cure
        key, _, value = line.partition(' = ')
        config.merge_from_dict({key: eval(value)})
    assert unsteady_images(config) == []
    assert [f for f in check_config(config) if f.rule == 'cached maps'] == []


class _Runner:
    def __init__(self, config):
        self.cfg, self.model = config, torch.nn.Identity()


def test_padding_that_follows_the_batch_is_refused(tmp_path):
    config = training(tmp_path, [dict(RESIZE, scale=(130, 90))])
    (found,) = unsteady_images(config)
    assert found.key == 'model.data_preprocessor.batch_augments'
    config.merge_from_dict({found.key: found.value})
    assert config.model.data_preprocessor.batch_augments[0]['size'] == (160, 160)
    assert unsteady_images(config) == []
    for steady in (dict(batch_size=1), None):
        alone = training(tmp_path, [dict(RESIZE, keep_ratio=steady is not None)])
        alone.train_dataloader.merge(steady) if steady else None
        alone.train_dataloader.batch_size = 1 if steady else 2
        assert unsteady_images(alone) == []
    flip = dict(type='RandomFlip', prob=0.0)
    square = dict(type='Pad', size=(128, 128))
    own = training(tmp_path, [RESIZE, square, flip, dict(type='mine.Blur')])
    assert unsteady_images(own, steady=('mine.Blur',)) == []
