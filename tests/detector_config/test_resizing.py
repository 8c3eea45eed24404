"""The size of images in all pipelines of mmdet's configs."""

from copy import deepcopy

import pytest
from mmengine.config import Config

from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.detector_config.resizing import resize
from mmdet_backbones.detector_config.tree import type_name, walk
from mmdet_backbones.errors import UserError

YOLOX = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_d53_8xb8-ms-608-273e_coco.py'
FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def resized(name: str, height: int, width: int) -> Config:
    config = read_by_name(name)
    resize(config, (height, width))
    return config


def named(part: object, name: str) -> list:
    return [step for _, step in walk(part) if type_name(step) == name]


def test_images_that_keep_their_ratio():
    for size in ((480, 800), (800, 480)):
        config = resized(FASTER, *size)
        for split in ('train', 'val', 'test'):
            steps = named(config[f'{split}_dataloader'], 'Resize')
            # Either side may be the longer one, as in the base.
            assert [step.scale for step in steps] == [(800, 480)]


def test_mosaic_and_what_follows_from_its_canvas():
    config = resized(YOLOX, 416, 512)
    train = config.train_dataloader
    assert named(train, 'Mosaic')[0].img_scale == (512, 416)
    assert named(train, 'MixUp')[0].img_scale == (512, 416)
    assert named(train, 'RandomAffine')[0].border == (-256, -208)
    assert named(train, 'Resize')[0].scale == (512, 416)
    augment = config.model.data_preprocessor.batch_augments[0]
    # 480 to 800 for a height of 640, in steps of 32.
    assert augment.random_size_range == (320, 512)
    scales = [step.scale for step in named(config.tta_pipeline, 'Resize')]
    assert scales == [(512, 416), (256, 208), (768, 624)]


def test_both_stages_of_a_training():
    config = resized(RTMDET, 320, 320)
    train = config.train_dataloader
    assert named(train, 'CachedMosaic')[0].img_scale == (320, 320)
    # The canvas of a mosaic is twice as large.
    assert named(train, 'RandomResize')[0].scale == (640, 640)
    stage = config.custom_hooks[1].switch_pipeline
    for name, key in (('RandomResize', 'scale'), ('RandomCrop', 'crop_size'),
                      ('Pad', 'size')):  # fmt: skip
        assert named(stage, name)[0][key] == (320, 320)


def test_sizes_that_are_drawn_at_random():
    config = resized(DINO, 400, 666)
    choices = named(config.train_dataloader, 'RandomChoiceResize')
    assert choices[0].scales[0] == (240, 666)
    assert choices[0].scales[-1] == (400, 666)
    assert named(config.train_dataloader, 'RandomCrop')[0].crop_size == (192, 300)
    assert named(config.test_dataloader, 'Resize')[0].scale == (666, 400)
    config = resized(YOLOV3, 304, 304)
    scale = named(config.train_dataloader, 'RandomResize')[0].scale
    assert [tuple(pair) for pair in scale] == [(160, 160), (304, 304)]


def test_the_size_that_there_is_changes_nothing():
    for name, size in ((YOLOX, (640, 640)), (FASTER, (800, 1333)), (DINO, (800, 1333))):
        config = read_by_name(name)
        before = deepcopy(config.to_dict())
        resize(config, size)
        assert config.to_dict() == before


@pytest.mark.parametrize('scale', [None, [], (640,), (640, None), 'large', dict(w=1)])
def test_a_size_that_is_none_is_not_understood(scale):
    config = read_by_name(FASTER)
    for split in ('train', 'val', 'test'):
        named(config[f'{split}_dataloader'], 'Resize')[0].scale = scale
    with pytest.raises(UserError, match='has no transform that sets a size'):
        resize(config, (400, 500))


def test_what_is_not_understood_is_told():
    config = read_by_name(FASTER)
    pipeline = config.test_dataloader.dataset.pipeline
    config.val_dataloader.dataset.pipeline = pipeline[:1]
    config.test_dataloader.dataset.pipeline = pipeline[:1]
    with pytest.raises(UserError, match=r'test_dataloader.*scale=\(500, 400\)'):
        resize(config, (400, 500))
    with pytest.raises(UserError, match='input_size'):
        resized('mmdet::ssd/ssd300_coco.py', 512, 512)
