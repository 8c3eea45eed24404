"""The check of a config: one planted mistake each is found, sound configs pass."""

import json
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config

from mmdet_backbones.engine.mistakes import UserError
from mmdet_backbones.swap.check import check_config, require_sound
from mmdet_backbones.swap.findings import describe, errors_of

ROOT = Path(__file__).parents[1]
CHECK = 'tools/check_config.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
SHUFFLENET = dict(_delete_=True, type='mmpretrain.ShuffleNetV2', widen_factor=0.5)
R18 = dict(
    _delete_=True,
    type='mmdet_backbones.TIMMBackbone',
    model_name='resnet18',
    out_strides=(4, 8, 16, 32),
    init_cfg=dict(type='Pretrained', checkpoint='timm://resnet18.tv_in1k'),
)
R18_FPN = dict(backbone=R18, neck=dict(in_channels=[64, 128, 256, 512]))
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
)


def load(tmp_path, base, **settings):
    """A config that inherits from a base, as a user writes it."""
    path = tmp_path / 'config.py'
    lines = [f'_base_ = {base!r}', *(f'{k} = {v!r}' for k, v in settings.items())]
    path.write_text('\n'.join(lines))
    return Config.fromfile(path)


def merged(model, **parts):
    found = {**model}
    for key, value in parts.items():
        found[key] = {**found.get(key, {}), **value}
    return found


PLANTED = {
    'channels of another net': (
        RETINANET,
        merged(R18_FPN, neck=dict(in_channels=[256, 512, 1024, 2048])),
        'channels',
        'model.neck.in_channels = [64, 128, 256, 512]',
    ),
    'channels shallow to deep for YOLOv3': (
        YOLOV3,
        dict(neck=dict(in_channels=[32, 96, 320])),
        'channels',
        'model.neck.in_channels = [320, 96, 32]',
    ),
    'one level too many': (
        RETINANET,
        merged(R18_FPN, neck=dict(in_channels=[64, 128, 256])),
        'channels',
        'model.neck.in_channels = [64, 128, 256, 512]',
    ),
    'a stride twice': (
        YOLOX,
        dict(
            backbone=dict(SHUFFLENET, out_indices=(1, 2, 3)),
            neck=dict(in_channels=[96, 192, 1024]),
        ),
        'levels',
        'model.backbone.out_indices = (0, 1, 2)',
    ),
    'levels too shallow for the head': (
        YOLOX,
        dict(backbone=dict(R18, out_strides=(4, 8, 16)), neck=dict(
            in_channels=[64, 128, 256])),
        'levels',
        'model.backbone.out_strides = (8, 16, 32)',
    ),
    'strides of the head': (
        RETINANET,
        merged(R18_FPN, bbox_head=dict(
            anchor_generator=dict(strides=[4, 8, 16, 32, 64]))),
        'levels',
        'model.bbox_head.anchor_generator.strides = [8, 16, 32, 64, 128]',
    ),
    'arguments of the base': (
        RETINANET,
        dict(backbone=dict(type='mmdet_backbones.TIMMBackbone', model_name='resnet18')),
        'arguments',
        'model.backbone._delete_ = True',
    ),
    'a class that is not there': (
        RETINANET,
        dict(neck=dict(type='FNP')),
        'type',
        None,
    ),
    'a level that is not there': (
        RETINANET,
        merged(R18_FPN, backbone=dict(out_strides=(4, 8, 16, 64))),
        'backbone',
        None,
    ),
    'maps with channels last': (
        RETINANET,
        dict(backbone=dict(
            _delete_=True, type='mmpretrain.TIMMBackbone', features_only=True,
            model_name='swin_tiny_patch4_window7_224', img_size=(320, 416))),
        'channels last',
        "model.backbone.type = 'mmdet_backbones.TIMMBackbone'",
    ),
    'images of one size': (
        RETINANET,
        dict(backbone=dict(
            _delete_=True, type='mmpretrain.TIMMBackbone', features_only=True,
            model_name='swin_tiny_patch4_window7_224')),
        'image size',
        "model.backbone.type = 'mmdet_backbones.TIMMBackbone'",
    ),
    'no checkpoint there': (
        RETINANET,
        merged(R18_FPN, backbone=dict(
            init_cfg=dict(type='Pretrained', checkpoint='no/such.pth'))),
        'weights',
        None,
    ),
    'raw images for weights of ImageNet': (
        YOLOX,
        dict(backbone=dict(R18, out_strides=(8, 16, 32)),
             neck=dict(in_channels=[128, 256, 512])),
        'preprocessing',
        'model.data_preprocessor.mean = [123.675, 116.28, 103.53]',
    ),
    'blue first': (
        RETINANET,
        merged(R18_FPN, data_preprocessor=dict(bgr_to_rgb=False)),
        'preprocessing',
        'model.data_preprocessor.bgr_to_rgb = True',
    ),
    'classes of another data set': (
        RETINANET,
        merged(R18_FPN, bbox_head=dict(num_classes=20)),
        'classes',
        'model.bbox_head.num_classes = 80',
    ),
    'frozen and random': (
        RETINANET,
        merged(R18_FPN, backbone=dict(init_cfg=None, frozen_stages=1)),
        'frozen and random',
        'model.backbone.frozen_stages = -1',
    ),
    'statistics of nothing': (
        RETINANET,
        merged(R18_FPN, backbone=dict(init_cfg=None, norm_eval=True)),
        'frozen and random',
        'model.backbone.norm_eval = False',
    ),
    'frozen too late': (
        YOLOX,
        dict(
            backbone=dict(_delete_=True, type='mmpretrain.MobileNetV3', arch='small',
                          out_indices=(3, 8, 11), frozen_stages=2),
            neck=dict(in_channels=[24, 48, 96])),
        'frozen late',
        "model.backbone.type = 'mmdet_backbones.MobileNetV3'",
    ),
    'a tail without gradient': (
        YOLOX,
        dict(backbone=dict(SHUFFLENET, out_indices=(0, 1, 2)),
             neck=dict(in_channels=[48, 96, 192])),
        'no gradient',
        "model.backbone.type = 'mmdet_backbones.ShuffleNetV2'",
    ),
    'SGD for a ConvNeXt': (
        RETINANET,
        dict(
            backbone=dict(R18, model_name='convnext_atto', init_cfg=dict(
                type='Pretrained', checkpoint='timm://convnext_atto')),
            neck=dict(in_channels=[40, 80, 160, 320])),
        'optimiser',
        None,
    ),
    'sizes that the levels do not divide': (
        YOLOX,
        dict(
            data_preprocessor=dict(IMAGENET, pad_size_divisor=1, batch_augments=[dict(
                type='BatchSyncRandomResize', random_size_range=(320, 640),
                size_divisor=16, interval=10)]),
            backbone=dict(R18, out_strides=(8, 16, 32)),
            neck=dict(in_channels=[128, 256, 512])),
        'image size',
        'model.data_preprocessor.batch_augments.0.size_divisor = 32',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_mistake_is_found(name, tmp_path):
    base, model, rule, cure = PLANTED[name]
    cfg = load(tmp_path, base, model=model)
    findings = check_config(cfg)
    hits = [finding for finding in findings if finding.rule == rule]
    assert hits, describe(findings)
    if cure is not None:
        assert cure in [line for hit in hits for line in hit.cure], describe(findings)


@pytest.mark.parametrize('base', [YOLOX, YOLOV3, RETINANET])
def test_sound_configs_are_not_accused(base, tmp_path):
    settings = {RETINANET: dict(model=R18_FPN)}.get(base, {})
    findings = check_config(load(tmp_path, base, **settings), num_gpus=8)
    assert findings == [], describe(findings)


def test_the_lines_to_write_cure_the_config(tmp_path):
    broken = dict(
        backbone=dict(SHUFFLENET, out_indices=(1, 2, 3)),
        neck=dict(in_channels=[96, 192, 1024]),
    )
    cfg = load(tmp_path, YOLOX, model=broken)
    applied = []
    for _ in range(3):  # a line may bring the next mistake to light
        findings = errors_of(check_config(cfg))
        for line in (line for finding in findings for line in finding.cure):
            key, _, value = line.partition(' = ')
            cfg.merge_from_dict({key: eval(value, {})})
            applied.append(key)
    assert findings == [], describe(findings)
    assert 'model.backbone.out_indices' in applied
    assert 'model.neck.in_channels' in applied
    assert cfg.model.neck.in_channels == [48, 96, 192]
    assert cfg.model.backbone.type == 'mmdet_backbones.ShuffleNetV2'
    assert errors_of(check_config(cfg, fast=False)) == []


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A classifier's file, with random weights."""
    path = tmp_path_factory.mktemp('weights') / 'resnet18.pth'
    torch.save(timm.create_model('resnet18').state_dict(), path)
    return path


def test_weights_of_another_depth(tmp_path, weights):
    init = dict(type='Pretrained', checkpoint=str(weights))
    right = load(tmp_path, RETINANET, model=merged(R18_FPN, backbone=dict(
        init_cfg=init)))  # fmt: skip
    assert errors_of(check_config(right)) == []
    wrong = merged(R18_FPN, backbone=dict(init_cfg=init, model_name='resnet34'))
    (finding,) = errors_of(check_config(load(tmp_path, RETINANET, model=wrong)))
    assert finding.rule == 'weights'
    assert 'Cause: another width or depth. The file is a resnet18' in finding.problem


def test_weights_that_the_host_would_lose_in_silence(tmp_path, weights):
    init = dict(type='Pretrained', checkpoint=str(weights), prefix='backbone')
    model = dict(backbone=dict(depth=18, init_cfg=init), neck=R18_FPN['neck'])
    findings = errors_of(check_config(load(tmp_path, RETINANET, model=model)))
    (finding,) = (f for f in findings if f.rule == 'weights')
    assert '0.0% of the parameters of ResNet would be loaded' in finding.problem
    assert finding.cure == ('model.backbone.init_cfg.prefix = None',)


def test_classes_that_the_config_does_not_name(tmp_path):
    content = dict(images=[], annotations=[], categories=[
        dict(id=1, name='tree'), dict(id=2, name='shrub')])  # fmt: skip
    (tmp_path / 'train.json').write_text(json.dumps(content))
    dataset = dict(
        data_root=str(tmp_path),
        ann_file='train.json',
        metainfo=dict(classes=('tree',)),
    )
    model = merged(R18_FPN, bbox_head=dict(num_classes=1))
    cfg = load(tmp_path, RETINANET, model=model,
               train_dataloader=dict(dataset=dataset))  # fmt: skip
    (finding,) = errors_of(check_config(cfg))
    assert 'boxes of shrub would be left out in silence' in finding.problem


def test_a_rate_of_another_batch_is_a_warning(tmp_path):
    cfg = load(tmp_path, RETINANET, model=R18_FPN)
    (finding,) = check_config(cfg, num_gpus=1)
    assert (finding.rule, finding.severity) == ('batch size', 'warning')
    assert '8 times what it should be' in finding.problem
    cfg.auto_scale_lr.enable = True
    assert check_config(cfg, num_gpus=1) == []


def test_a_step_that_fails_is_a_finding(tmp_path):
    model = merged(R18_FPN, bbox_head=dict(in_channels=64))
    cfg = load(tmp_path, RETINANET, model=model)
    assert errors_of(check_config(cfg)) == []
    (finding,) = errors_of(check_config(cfg, fast=False))
    assert finding.rule in ('run', 'weights')


def test_the_config_is_left_as_it_is(tmp_path):
    cfg = load(tmp_path, RETINANET, model=R18_FPN)
    before = cfg.pretty_text
    check_config(cfg)
    assert cfg.pretty_text == before


def test_training_does_not_start(tmp_path):
    model = merged(R18_FPN, neck=dict(in_channels=[1, 2, 3, 4]))
    with pytest.raises(UserError, match='not ready for training') as caught:
        require_sound(load(tmp_path, RETINANET, model=model), num_gpus=8)
    assert 'model.neck.in_channels = [64, 128, 256, 512]' in str(caught.value)


def test_the_tool_tells_all_and_fails(tmp_path, run_tool):
    load(tmp_path, RETINANET, model=merged(
        R18_FPN, neck=dict(in_channels=[1, 2, 3, 4]),
        data_preprocessor=dict(bgr_to_rgb=False)))  # fmt: skip
    path = str(tmp_path / 'config.py')
    done = run_tool(CHECK, path, '--fast', '--gpus', '8')
    assert done.returncode == 1
    assert '[error] channels: model.neck.in_channels' in done.stdout
    assert '[error] preprocessing: model.data_preprocessor' in done.stdout
    assert done.stdout.endswith('2 errors, 0 warnings\n')
    done = run_tool(CHECK, path, '--fast', '--gpus', '8', '--json')
    assert done.returncode == 1
    rules = {finding['rule'] for finding in json.loads(done.stdout)}
    assert rules == {'channels', 'preprocessing'}


def test_the_tool_passes_a_sound_config(tmp_path, run_tool):
    load(tmp_path, RETINANET, model=R18_FPN)
    done = run_tool(CHECK, str(tmp_path / 'config.py'), '--fast', '--gpus', '8')
    assert (done.returncode, done.stdout) == (0, '0 errors, 0 warnings\n')


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', sorted(ROOT.glob('configs/[!_]*/*.py')), ids=lambda path: path.stem
)
def test_shipped_configs_are_not_accused(path):
    cfg = Config.fromfile(path)
    findings = [f for f in check_config(cfg, num_gpus=8) if f.severity == 'error']
    assert findings == [], describe(findings)
