"""RT-DETR from a config: trained by a Runner, used by predict, swapped and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from small_rtdetr import MODEL
from squares import draw_squares

from mmdet_backbones import Detector
from mmdet_backbones.check.config import check_config
from mmdet_backbones.engine import launch
from mmdet_backbones.swap.swapping import SwapOptions, save

ROOT = Path(__file__).parents[2]
R50 = 'configs/rtdetr/rtdetr_resnet-50-d_8xb2-72e_coco.py'
EPOCHS = 20


@pytest.mark.parametrize(
    ('name', 'channels'),
    [
        # One map only, of which a pyramid is made.
        ('timm/vit_tiny_patch16_224', [256, 256, 256]),
        pytest.param('timm/resnet18d', [128, 256, 512], marks=pytest.mark.slow),
    ],
)
def test_another_backbone_comes_in_and_the_check_is_content(name, channels, tmp_path):
    out = tmp_path / 'swapped.py'
    save(SwapOptions(str(ROOT / R50), name, out))
    config = Config.fromfile(out)
    assert check_config(config) == []
    neck = config.model.neck
    assert (neck[-1] if isinstance(neck, list) else neck).in_channels == channels


@pytest.fixture
def config(tmp_path):
    """A training of a second per epoch on the synthetic squares."""
    root = tmp_path / 'squares'
    root.mkdir()
    draw_squares(root)
    model = {**MODEL, 'bbox_head': {**MODEL['bbox_head'], 'num_classes': 1}}
    text = f"""
_base_ = [{str(ROOT / 'configs/_base_/detectors/rtdetr_640_coco.py')!r}]
custom_imports = dict(imports=['mmdet_backbones'], allow_failed_imports=False)
model = dict(_delete_=True, **{model!r})
"""
    for split, kind in dict(train='train', val='val', test='val').items():
        data = dict(
            data_root=f'{root}/',
            ann_file=f'{kind}.json',
            data_prefix=dict(img=f'{kind}/'),
            metainfo=dict(classes=('tree',)),
        )
        loader = dict(num_workers=0, persistent_workers=False, dataset=data)
        text += f'{split}_dataloader = dict({_items(loader)})\n'
    path = tmp_path / 'mine.py'
    path.write_text(text)
    found = Config.fromfile(path)
    for step in (*found.train_pipeline, *found.test_pipeline):
        if step['type'] == 'Resize':
            step['scale'] = (128, 96)
    found.merge_from_dict(
        {
            'train_dataloader.batch_size': 4,
            'train_dataloader.dataset.pipeline': [
                step
                for step in found.train_pipeline
                if step['type'] not in ('Expand', 'MinIoURandomCrop')
            ],
            'val_dataloader.dataset.pipeline': found.test_pipeline,
            'test_dataloader.dataset.pipeline': found.test_pipeline,
            'val_evaluator.ann_file': f'{root}/val.json',
            'test_evaluator.ann_file': f'{root}/val.json',
            'train_cfg.max_epochs': EPOCHS,
            'train_cfg.val_interval': EPOCHS,
            'param_scheduler': [],
            'custom_hooks': [],
            'optim_wrapper.optimizer.lr': 3e-3,
            'auto_scale_lr.enable': False,
            'optim_wrapper.paramwise_cfg': None,
            'default_hooks.logger.interval': 1,
            'work_dir': str(tmp_path / 'work'),
            'launcher': 'none',
            'randomness': dict(seed=0),
        }
    )
    return found


def _items(settings: dict) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in settings.items())


@pytest.mark.slow
def test_the_loss_falls_and_the_weights_find_what_they_were_shown(config, tmp_path):
    runner = launch.build_runner(config)
    runner.train()
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 2 * EPOCHS
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    config.dump(tmp_path / 'used.py')
    detector = Detector.load(
        tmp_path / 'used.py', checkpoint=tmp_path / 'work' / f'epoch_{EPOCHS}.pth'
    )
    (found,) = detector.predict(tmp_path / 'squares' / 'val' / '1.png')
    assert lines[-1]['coco/bbox_mAP_50'] > 0.5
    # Squares lie at (10, 12) and (70, 40) and are 30 pixels wide.
    centre = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
    assert abs(centre - [[25, 27], [85, 55]]).max(-1).min() < 10
