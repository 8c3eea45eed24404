"""The check of a config: one planted mistake each is found, sound configs pass."""

import json
from importlib.util import find_spec
from pathlib import Path

import mmdet
import pytest
import timm
import torch
from cures import Draft, Tally, follow
from mmengine.config import Config
from mmengine.registry import DefaultScope
from planted import (
    COPIED,
    PLANTED,
    R18_FPN,
    RETINANET,
    YOLOV3,
    YOLOX,
    load,
    merged,
)

from mmdet_backbones.check.config import check_config, require_sound
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.check.trial import try_model
from mmdet_backbones.detector_config.detector import DetectorConfig
from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.errors import UserError, explain

ROOT = Path(__file__).parents[2]
CHECK = 'tools/check_config.py'


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
    # mmdet's YOLOX itself learns from random weights, which is told.
    whole = 'https://host.invalid/yolox_tiny.pth'
    settings = {RETINANET: dict(model=R18_FPN), YOLOX: dict(load_from=whole)}
    settings = settings.get(base, {})
    findings = check_config(load(tmp_path, base, **settings), num_gpus=8)
    assert findings == [], describe(findings)


@pytest.mark.parametrize('name', COPIED)
def test_the_lines_to_write_cure_what_is_copied_everywhere(name, tmp_path):
    base, model, expected, outcome = COPIED[name]
    draft = Draft(tmp_path, base, dict(model=model))
    rules = follow(draft, Tally()).rules
    assert rules >= expected
    cfg, (kind, strides, channels) = draft.read(), outcome
    assert cfg.model.backbone.type == kind
    assert DetectorConfig(cfg).net.out_strides == strides
    assert cfg.model.neck.in_channels == channels
    assert 'shufflenet_v1' not in cfg.model.backbone.init_cfg.checkpoint
    # One training step and one prediction; the addresses cannot be asked here.
    trial = try_model(cfg.model)
    assert (trial.idle, trial.loss > 0) == ((), True)


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


def test_a_package_that_only_the_loss_needs():
    cfg = read_by_name('mmdet::paa/paa_r50_fpn_1x_coco.py')
    assert [f for f in check_config(cfg, training=False) if f.rule == 'package'] == []
    found = [f for f in check_config(cfg) if f.rule == 'package']
    if find_spec('sklearn') is not None:
        assert found == []
        return
    assert 'run pip install scikit-learn' in found[0].problem
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        pytest.raises(ImportError, match='pip install sklearn') as error,
    ):
        try_model(cfg.model)
    assert explain(error.value).startswith('Please run "pip install scikit-learn"')


def test_a_net_of_mmpretrain_is_not_measured_by_mmdets_class_of_its_name(tmp_path):
    backbone = dict(
        _delete_=True,
        type='mmdet_backbones.MMPretrainBackbone',
        model=dict(type='ResNet', depth=18, drop_path_rate=0.1),
        out_strides=(4, 8, 16, 32),
    )
    cfg = load(tmp_path, RETINANET, model=dict(R18_FPN, backbone=backbone))
    assert errors_of(check_config(cfg)) == []


@pytest.mark.slow
def test_a_window_larger_than_the_maps_of_a_small_image_is_no_mistake(tmp_path):
    pytest.importorskip('mmpretrain.models')
    backbone = dict(
        _delete_=True,
        type='mmpretrain.SwinTransformerV2',
        arch='tiny',
        img_size=256,
        window_size=[16, 16, 16, 8],
        out_indices=(1, 2, 3),
    )
    neck = dict(in_channels=[192, 384, 768], start_level=0)
    cfg = load(tmp_path, RETINANET, model=dict(backbone=backbone, neck=neck))
    findings = check_config(cfg, fast=False)
    assert errors_of(findings) == [], describe(findings)
    with pytest.raises(AssertionError, match='smaller than the window size'):
        try_model(cfg.model)


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


def test_a_base_without_a_model_is_no_mistake_but_cannot_be_trained(
    tmp_path, run_tool, run_python
):
    path = tmp_path / 'schedule.py'
    path.write_text('train_cfg = dict(max_epochs=1)\n')
    done = run_tool(CHECK, str(path))
    assert done.returncode == 0
    assert '[warning] model: model\n  the config has no model' in done.stdout
    with pytest.raises(UserError, match='there is no model in the config'):
        require_sound(Config.fromfile(path))
    for arguments in (['train.py', path, '--no-check'], ['test.py', path, 'x.pth']):
        done = run_python(f'tools/{arguments[0]}', *map(str, arguments[1:]))
        assert done.returncode == 1
        assert 'error: there is no model in the config' in done.stderr
    path.write_text('model = None\n')
    assert errors_of(check_config(Config.fromfile(path)))


def test_the_tool_tells_all_and_fails(tmp_path, run_tool):
    load(tmp_path, RETINANET, model=merged(
        R18_FPN, neck=dict(in_channels=[1, 2, 3, 4]),
        data_preprocessor=dict(bgr_to_rgb=False)))  # fmt: skip
    path = str(tmp_path / 'config.py')
    done = run_tool(CHECK, path, '--fast', '--gpus', '8')
    assert done.returncode == 1
    assert '[error] channels: model.neck.in_channels' in done.stdout
    assert '[error] preprocessing: model.data_preprocessor' in done.stdout
    assert done.stdout.startswith('2 errors: will not train as it is meant to\n')
    done = run_tool(CHECK, path, '--fast', '--gpus', '8', '--json')
    assert done.returncode == 1
    rules = {finding['rule'] for finding in json.loads(done.stdout)}
    assert rules == {'channels', 'preprocessing'}


def test_the_tool_passes_a_sound_config(tmp_path, run_tool):
    load(tmp_path, RETINANET, model=R18_FPN)
    done = run_tool(CHECK, str(tmp_path / 'config.py'), '--fast', '--gpus', '8')
    assert (done.returncode, done.stdout) == (0, 'sound: nothing is wrong\n')


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', sorted(ROOT.glob('configs/[!_]*/*.py')), ids=lambda path: path.stem
)
def test_shipped_configs_are_not_accused(path):
    cfg = Config.fromfile(path)
    findings = errors_of(check_config(cfg, num_gpus=8))
    weights = str((cfg.model.backbone.get('init_cfg') or {}).get('checkpoint'))
    if weights.startswith('data/') and not Path(weights).is_file():
        # The demo's weights, which tools/demo/prepare_demo.py fetches.
        assert [finding.rule for finding in findings] == ['weights']
        assert 'is not there' in findings[0].problem
    else:
        assert findings == [], describe(findings)


def mmdet_configs():
    """The first config of each folder that mmdet ships, by its path."""
    root = Path(mmdet.__file__).parent / '.mim' / 'configs'
    first = {}
    for path in sorted(root.rglob('*.py')):
        if '_base_' not in path.parts:
            first.setdefault(path.parent, path)
    return {str(path.relative_to(root)): path for path in first.values()}


# What mmdet ships with a mistake: BGR images for weights of RGB, a file it has not.
REALLY_WRONG = {
    'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py': 'preprocessing',
    'gn/mask-rcnn_r101_fpn_gn-all_2x_coco.py': 'preprocessing',
    'selfsup_pretrain/mask-rcnn_r50-mocov2-pre_fpn_1x_coco.py': 'weights',
}


@pytest.mark.slow
@pytest.mark.parametrize('name', mmdet_configs())
def test_configs_of_mmdet_are_not_accused(name):
    findings = errors_of(check_config(Config.fromfile(mmdet_configs()[name])))
    # What is not installed here is no fault of the config.
    findings = [finding for finding in findings if finding.rule != 'package']
    if name in REALLY_WRONG:
        assert {finding.rule for finding in findings} == {REALLY_WRONG[name]}
    else:
        assert findings == [], describe(findings)
