"""Swapped configs that train on other data, sizes and lengths than their base."""

from pathlib import Path

import pytest
from helpers.annotations import annotations
from mmengine.config import Config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.trial import try_config
from mmdet_backbones.detector_config.tree import type_name
from mmdet_backbones.shapes.build import on_meta
from mmdet_backbones.swap.swapping import SwapOptions, notes_in, save, swap_backbone

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py'
RESNET = 'torchvision/resnet50'


@pytest.fixture
def swapped(tmp_path):
    """Swap, write and read the config."""

    def make(base: str, name: str, **order) -> Config:
        out = tmp_path / 'swapped.py'
        save(SwapOptions(base, name, out, force=True, **order))
        return Config.fromfile(out)

    return make


def told(config: Config) -> str:
    return ' '.join(notes_in(Path(config.filename).read_text()).split())


@pytest.mark.parametrize(
    ('base', 'images'),
    [
        (FASTER, 82),
        (YOLOX, 20),
        (RTMDET, 82),
        *(
            pytest.param(base, images, marks=pytest.mark.slow)
            for base in (FASTER, CASCADE, DINO, RETINANET, YOLOX, RTMDET, YOLOV3)
            for images in (20, 600, 5000)
        ),
    ],
)
def test_the_check_is_content_with_a_config_for_few_images(
    base, images, swapped, tmp_path
):
    data = annotations(tmp_path / 'data', images)
    config = swapped(base, RESNET, data=str(data))
    assert check_config(config) == []
    loop = config.train_cfg
    total = loop.max_epochs * -(-images // config.train_dataloader.batch_size)
    assert total >= 4000 or loop.max_epochs >= 300
    assert loop.val_interval <= loop.max_epochs
    warm_up = config.param_scheduler[0]
    if 'milestones' not in warm_up:  # as in DINO, which has none
        by_epoch = warm_up.get('by_epoch', True)
        assert warm_up.end <= (loop.max_epochs if by_epoch else total) / 10
    assert config.model.backbone.init_cfg.checkpoint == 'torchvision://resnet50'
    if images == 82:
        assert '82 images' in told(config)


def test_a_config_of_ones_own_tells_its_data(tmp_path):
    data = annotations(tmp_path / 'data', 30)
    base = tmp_path / 'mine.py'
    base.write_text(
        f'_base_ = {FASTER!r}\n'
        f'train_dataloader = dict(dataset=dict(data_root={f"{data}/"!r},\n'
        "    ann_file='annotations/train.json', metainfo=dict(classes=('tree',))))\n"
        'model = dict(roi_head=dict(bbox_head=dict(num_classes=1)))\n'
    )
    text = swap_backbone(SwapOptions(str(base), RESNET, tmp_path / 'out.py'))
    # 15 iterations an epoch.
    assert '30 images, 15 iterations an epoch: 267 epochs instead of 12' in ' '.join(
        notes_in(text).split()
    )
    assert 'train_cfg = dict(max_epochs=267, val_interval=27)' in text


def test_data_as_large_as_that_of_the_base_keeps_its_schedule(swapped):
    text = Path(swapped(FASTER, RESNET).filename).read_text()
    assert 'train_cfg' not in text
    assert 'param_scheduler' not in text


def test_what_is_asked_for(swapped):
    config = swapped(YOLOX, RESNET, epochs=50, batch=4, size=(416, 512), lr=0.001)
    assert config.train_cfg.max_epochs == 50
    assert config.train_dataloader.batch_size == 4
    assert config.train_dataloader.dataset.pipeline[0].img_scale == (512, 416)
    assert config.test_dataloader.dataset.pipeline[1].scale == (512, 416)
    assert config.optim_wrapper.optimizer.lr == 0.001
    assert config.param_scheduler[1].eta_min == pytest.approx(0.001 * 0.05)
    # The rate that is written is that of the batch of one GPU.
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=4)
    for word in ('--batch', '--size', '--lr', 'as asked for'):
        assert word in told(config)
    assert check_config(config) == []


def test_another_batch_keeps_the_batch_that_the_rate_is_for(swapped, tmp_path):
    config = swapped(FASTER, RESNET, batch=8)
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=16)
    assert config.optim_wrapper.optimizer.lr == 0.02
    # Where the base tells of none, its own batch is it, or that of the recipe.
    base = tmp_path / 'mine.py'
    base.write_text(f'_base_ = {FASTER!r}\nauto_scale_lr = dict(_delete_=True)\n')
    config = swapped(str(base), RESNET, batch=8)
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=2)
    config = swapped(str(base), 'timm/convnext_atto')
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=16, rule='sqrt')


@pytest.mark.parametrize(
    ('order', 'words'),
    [
        (dict(epochs=0), '--epochs must be a positive integer, got 0'),
        (dict(batch=-1), '--batch must be a positive integer, got -1'),
        (dict(lr=float('nan')), '--lr must be a positive number'),
        (dict(size=(3, 400)), '--size is height and width.*got 3 400'),
        (dict(no_weights=True, checkpoint='w.pth'), 'contradict each other'),
    ],
)
def test_mistakes(order, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        swap_backbone(SwapOptions(FASTER, RESNET, tmp_path / 'out.py', **order))


def test_a_config_does_not_take_the_place_of_its_base(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {FASTER!r}\n')
    with pytest.raises(ValueError, match=r"mine\.py' is the base"):
        save(SwapOptions(str(path), RESNET, path, force=True))
    assert path.read_text() == f'_base_ = {FASTER!r}\n'


def test_milestones_that_are_no_numbers(tmp_path):
    base = tmp_path / 'mine.py'
    steps = [dict(type='MultiStepLR', milestones=[dict(epoch=8)])]
    base.write_text(f'_base_ = {FASTER!r}\nparam_scheduler = {steps}\n')
    with pytest.raises(ValueError, match=r'milestones\.0: it must be a whole number'):
        swap_backbone(SwapOptions(str(base), RESNET, tmp_path / 'out.py', epochs=3))


def test_a_random_start_is_asked_for_or_told_of(swapped):
    backbone = swapped(FASTER, RESNET, no_weights=True).model.backbone
    assert backbone.init_cfg is None
    assert backbone.norm_eval is False
    assert 'frozen_stages' not in backbone
    config = swapped(FASTER, 'mmdet/ResNet-18', no_weights=True)
    assert (config.model.backbone.norm_eval, config.load_from) == (False, None)
    assert 'RANDOM weights, as asked for (--no-weights)' in told(config)
    assert "init_cfg=dict(type='Pretrained', checkpoint='torchvision:" in told(config)
    config = swapped(FASTER, 'res2net50_26w_4s')
    assert 'same net with weights is timm/res2net50_26w_4s' in told(config)


def test_coco_is_measured_by_class(swapped, tmp_path):
    config = swapped(FASTER, RESNET)
    assert (config.val_evaluator.classwise, config.test_evaluator.classwise) == (
        True, True
    )  # fmt: skip
    base = tmp_path / 'mine.py'
    base.write_text(
        f'_base_ = {FASTER!r}\n'
        "val_evaluator = [dict(type='CocoMetric', ann_file='a.json'),\n"
        "                 dict(type='DumpResults', out_file_path='r.pkl')]\n"
    )
    first, second = swapped(str(base), RESNET).val_evaluator
    assert first == dict(type='CocoMetric', ann_file='a.json', classwise=True)
    assert 'classwise' not in second
    voc = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
    assert 'classwise' not in swapped(voc, RESNET).val_evaluator


def test_a_test_split_is_tested_on(swapped, tmp_path):
    data = annotations(tmp_path / 'data', 20, ('train', 'val', 'test'))
    for base in (FASTER, YOLOX):
        config = swapped(base, RESNET, data=str(data))
        test, val = config.test_dataloader.dataset, config.val_dataloader.dataset
        assert (test.ann_file, test.data_prefix.img) == (
            'annotations/test.json', 'test/'
        )  # fmt: skip
        assert val.ann_file == 'annotations/val.json'
        assert config.test_evaluator.ann_file == f'{data}/annotations/test.json'
        assert config.val_evaluator.ann_file == f'{data}/annotations/val.json'


def size_of(config: Config) -> float:
    """Parameters in millions."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    return sum(p.numel() for p in on_meta(lambda: MODELS.build(config.model))
               .parameters()) / 1e6  # fmt: skip


def test_a_neck_does_not_get_as_wide_as_a_wide_backbone(swapped):
    config = swapped(YOLOX, RESNET)
    mapper, neck = config.model.neck
    assert (mapper.type, mapper.out_channels) == ('ChannelMapper', 256)
    assert neck.in_channels == [256, 256, 256]
    assert 'YOLOXPAFPN is as wide as its levels' in told(config)
    narrow = size_of(config)
    wide = size_of(swapped(YOLOX, RESNET, keep_width=True))
    assert (round(narrow), round(wide)) == (29, 71)


def test_a_narrow_backbone_is_not_projected(swapped):
    assert swapped(YOLOX, 'timm/mobilenetv2_100').model.neck.in_channels == [
        32,
        96,
        320,
    ]
    assert swapped(RTMDET, 'timm/resnet18').model.neck.type == 'CSPNeXtPAFPN'


@pytest.mark.slow
@pytest.mark.parametrize('base', [YOLOX, RTMDET])
def test_a_projected_detector_runs(base, swapped):
    config = swapped(base, RESNET, num_classes=2)
    assert type_name(config.model.neck[0]) == 'ChannelMapper'
    trial = try_config(Path(config.filename))
    assert trial.loss > 0
    assert trial.idle == ()
    # And stands in for a base itself.
    out = Path(config.filename).with_name('again.py')
    save(SwapOptions(config.filename, 'timm/resnet18', out))
    assert Config.fromfile(out).model.neck[0].in_channels == [128, 256, 512]


@pytest.mark.slow
def test_parameters_without_a_gradient_are_told(swapped):
    """C4 reads stride 16; the class of mmdet builds the stages behind it as well."""
    base = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
    config = swapped(base, 'mmdet/MobileNetV2')
    assert config.find_unused_parameters is True
    assert 'get no gradient' in told(config)
    assert '(layer6, layer7, conv2)' in told(config)
    assert check_config(config) == []
    config = swapped(base, 'timm/mobilenetv2_100')
    assert 'find_unused_parameters' not in config
    assert 'no gradient' not in told(config)
