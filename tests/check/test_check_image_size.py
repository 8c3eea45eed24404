"""The step on a synthetic batch: images as the pipeline makes them, where need be."""

import pytest
from config_files import ROOT
from mmengine.config import Config
from planted import R18_FPN, RETINANET, YOLOX, load, merged

from mmdet_backbones.check.config import check_config, probe_sizes
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.check.trial import try_model
from mmdet_backbones.detector_config.detector import DetectorConfig
from mmdet_backbones.detector_config.image_size import image_size

SSD = 'mmdet::ssd/ssd300_coco.py'
# A window of 24 needs maps of 24, and 800 pixels give 25 at stride 32.
WINDOW = dict(
    _delete_=True,
    type='mmpretrain.SwinTransformerV2',
    arch=dict(
        embed_dims=24,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        extra_norm_every_n_blocks=0,
    ),
    img_size=768,
    window_size=24,
    out_indices=(1, 2, 3),
    init_cfg=None,
)
NARROW = dict(
    backbone=WINDOW,
    neck=dict(in_channels=[48, 96, 192], out_channels=16, start_level=0),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)


def of(pipeline, model=(), **dataset):
    loader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline, **dataset))
    return Config(dict(model=dict(model), train_dataloader=loader))


@pytest.mark.parametrize(
    ('pipeline', 'preprocessor', 'size'),
    [
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], {}, (800, 1067)),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)],
         dict(pad_size_divisor=32), (800, 1088)),
        ([dict(type='Resize', scale=(640, 480))], {}, (480, 640)),
        ([dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 480)])], {},
         (480, 640)),
        ([dict(type='RandomResize', scale=(1280, 1280), ratio_range=(0.5, 2.0)),
          dict(type='RandomCrop', crop_size=(640, 512))], {}, (640, 512)),
        ([dict(type='Mosaic', img_scale=(640, 640)), dict(type='RandomFlip')], {},
         (640, 640)),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)],
         dict(batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024))]),
         (1024, 1024)),
        ([dict(type='Mosaic', img_scale=(640, 640))],
         dict(batch_augments=[dict(type='BatchSyncRandomResize',
                                   random_size_range=(320, 640), size_divisor=32)]),
         (320, 320)),
        ([dict(type='RandomCrop', crop_size=(0.5, 0.5))], {}, None),
        ([], {}, None),
    ],
)  # fmt: skip
def test_the_size_of_a_usual_image(pipeline, preprocessor, size):
    model = dict(data_preprocessor=preprocessor)
    assert image_size(of(pipeline, model)) == size


def test_images_of_data_sets_that_mix_them(tmp_path):
    assert image_size(load(tmp_path, YOLOX)) == (320, 320)
    tiny = ROOT / 'configs/rtmdet/rtmdet-tiny_shufflenet-v2-1x_8xb32-300e_coco.py'
    assert image_size(Config.fromfile(tiny)) == (640, 640)


def test_the_quick_size_comes_first(tmp_path):
    config = load(tmp_path, RETINANET, model=R18_FPN)
    assert probe_sizes(DetectorConfig(config)) == [(128, 128), (800, 1088)]


@pytest.mark.slow
def test_a_detector_that_takes_no_small_images(tmp_path):
    config = load(tmp_path, SSD, model=dict(backbone=dict(init_cfg=None)))
    with pytest.raises(RuntimeError, match='Kernel size'):
        try_model(load(tmp_path, SSD).model)
    findings = check_config(config, fast=False)
    assert errors_of(findings) == [], describe(findings)


@pytest.mark.slow
def test_a_window_that_only_real_images_fill(tmp_path):
    pytest.importorskip('mmpretrain.models')
    config = load(tmp_path, RETINANET, model=NARROW)
    assert probe_sizes(DetectorConfig(config)) == [(800, 1088)]
    findings = check_config(config, fast=False)
    assert errors_of(findings) == [], describe(findings)


@pytest.mark.slow
def test_what_fails_at_every_size_is_told_with_the_size(tmp_path):
    model = merged(R18_FPN, bbox_head=dict(in_channels=64))
    model = merged(model, backbone=dict(init_cfg=None))
    config = load(tmp_path, RETINANET, model=model)
    (told,) = errors_of(check_config(config, fast=False))
    assert 'a synthetic batch of 800 x 1088 pixels fails' in told.problem
