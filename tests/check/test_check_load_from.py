"""Checkpoints of whole detectors: what of the model they fill, and what they do not."""

import os
import re

import pytest
import torch
from cures import applied
from mmengine.runner import load_checkpoint
from planted import load, merged
from small_detectors import HOSTS, OURS, build, save, small_config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.detector_config.detector import DetectorConfig
from mmdet_backbones.detector_config.weights import Start, look_into

QUIET = dict(train_dataloader=None)


@pytest.fixture(
    scope='module', params=['ours', pytest.param('hosts', marks=pytest.mark.slow)]
)
def case(request, tmp_path_factory):
    """A config that starts from random weights, its detector, a folder."""
    return make_case(request.param, tmp_path_factory)


@pytest.fixture(scope='module')
def hosts(tmp_path_factory):
    return make_case('hosts', tmp_path_factory)


def make_case(whose, tmp_path_factory):
    folder = tmp_path_factory.mktemp('detector')
    model = {'ours': OURS, 'hosts': HOSTS}[whose]
    model = merged(model, backbone=dict(norm_eval=False))
    config = small_config(folder, model, **QUIET)
    return config, build(config), folder


def checked(config, **settings):
    new = applied(config, ())
    new.merge_from_dict(settings)
    return new, check_config(new)


def the_error(config, **settings):
    """The one error, whose lines leave no error."""
    new, findings = checked(config, **settings)
    (error,) = errors_of(findings)
    assert error.cure, describe(findings)
    after = check_config(applied(new, error.cure))
    assert errors_of(after) == [], describe(after)
    return error


def test_a_checkpoint_of_the_detector_is_not_accused(case):
    config, detector, folder = case
    path = save(folder / 'all.pth', detector.state_dict())
    for settings in (dict(load_from=path), dict(load_from=path, resume=True)):
        _, findings = checked(config, **settings)
        assert findings == [], describe(findings)
    parallel = {f'module.{k}': v for k, v in detector.state_dict().items()}
    path = save(folder / 'parallel.pth', parallel)
    assert checked(config, load_from=path)[1] == []
    path = save(folder / 'top.pth', {})
    torch.save(detector.state_dict(), path)
    assert checked(config, load_from=path)[1] == []


def test_paths(case):
    config, detector, folder = case
    path = save(folder / 'epoch_12.pth', detector.state_dict())
    error = the_error(config, load_from=str(folder / 'epoch_21.pth'))
    assert 'paths are relative to the folder' in error.problem
    assert error.cure[0].startswith(f"load_from = '{folder}/epoch_")
    error = the_error(config, load_from='no/such/folder/epoch_1.pth')
    assert error.cure == ('load_from = None',)
    torn = folder / 'torn.pth'
    torn.write_bytes((folder / 'epoch_12.pth').read_bytes()[:5000])
    assert 'torn.pth' in the_error(config, load_from=str(torn)).problem
    weights = torch.load(path, weights_only=True)['state_dict']
    weights['neck.fpn_convs.0.conv.bias'][0] = torch.nan
    path = save(folder / 'nan.pth', weights)
    assert 'neck.fpn_convs.0.conv.bias' in the_error(config, load_from=path).problem


def test_names_that_mmengine_does_not_load(case):
    config, _, _ = case
    error = the_error(config, load_from='mmdet::retinanet/retinanet_r50_fpn_1x_coco')
    (cure,) = error.cure
    assert re.fullmatch(
        r"load_from = 'https://download\.openmmlab\.com/.*retinanet_r50_fpn_1x.*pth'",
        cure,
    )
    error = the_error(config, load_from='mmdet::no/such_config.py')
    assert error.cure == ('load_from = None',)
    error = the_error(config, load_from='torchvision://resnet18')
    assert 'names weights of a backbone' in error.problem
    assert "'checkpoint': 'torchvision://resnet18'" in error.cure[1]
    assert 'http(s)' in the_error(config, load_from='gs://bucket/all.pth').problem
    # Whether a server has it is not asked, and what it has is not known.
    assert checked(config, load_from='https://host.invalid/all.pth')[1] == []


def test_a_checkpoint_of_a_backbone_goes_into_the_backbone(case):
    config, detector, folder = case
    path = save(folder / 'backbone.pth', detector.backbone.state_dict())
    error = the_error(config, load_from=path)
    parts = '0 of 100 tensors of the backbone, 0 of 16 tensors of the neck, 0 of 8'
    assert parts in error.problem
    assert 'all that the backbone alone needs' in error.problem
    assert error.cure[0] == 'load_from = None'
    assert error.cure[1].startswith('model.backbone.init_cfg')
    # As it does over weights that are named there already.
    other = dict(type='Pretrained', checkpoint=path, prefix='teacher.')
    new, _ = checked(config, load_from=path)
    new.model.backbone.init_cfg = other
    error = next(f for f in errors_of(check_config(new)) if f.key == 'load_from')
    assert errors_of(check_config(applied(new, error.cure))) == []


def test_weights_under_a_name_that_mmengine_does_not_look_at(case):
    config, detector, folder = case
    path = str(folder / 'wrapped.pth')
    torch.save(dict(model=detector.state_dict(), epoch=3), path)
    error = the_error(config, load_from=path)
    assert 'the weights stand under model' in error.problem
    averaged = dict(state_dict=detector.state_dict(), state_dict_ema={})
    torch.save(averaged, path)
    assert checked(config, load_from=path)[1] == []


def test_another_depth(case):
    config, _, folder = case
    deeper, _ = checked(config, **{'model.backbone.depth': 34})
    path = save(folder / 'deeper.pth', build(deeper).state_dict())
    error = the_error(config, load_from=path)
    assert 'it has more than ResNet takes, backbone.layer1.2.conv1' in error.problem


@pytest.mark.slow
def test_another_depth_the_other_way(case):
    config, detector, folder = case
    deeper, _ = checked(config, **{'model.backbone.depth': 34})
    path = save(folder / 'all.pth', detector.state_dict())
    error = the_error(deeper, load_from=path)
    assert '100 of 180 tensors of the backbone, 16 of 16 tensors of the neck' in (
        error.problem
    )
    assert 'not backbone.layer1.2.conv1.weight' in error.problem


def test_fewer_levels_than_in_the_checkpoint_are_no_other_net(case):
    config, detector, folder = case
    path = save(folder / 'all.pth', detector.state_dict())
    levels = {'num_stages': 3, 'out_indices': (0, 1, 2)}
    if str(config.model.backbone.type).startswith('mmdet_backbones'):
        levels = {'out_strides': (4, 8, 16)}
    settings = {f'model.backbone.{key}': value for key, value in levels.items()}
    settings |= {'model.neck.in_channels': [8, 16, 32], 'load_from': path}
    new, _ = checked(config, **settings)
    if 'num_stages' in levels:
        new.model.backbone.strides = (1, 2, 2)
        new.model.backbone.dilations = (1, 1, 1)
    findings = check_config(new)
    assert errors_of(findings) == [], describe(findings)
    (told,) = (f for f in findings if f.key == 'load_from')
    assert 'starts from random values: neck.' in told.problem


def test_other_classes_are_told_and_no_mistake(case):
    config, detector, folder = case
    path = save(folder / 'all.pth', detector.state_dict())
    settings = {'model.bbox_head.num_classes': 3, 'load_from': path}
    _, findings = checked(config, **settings)
    (told,) = findings
    assert told.severity == 'warning'
    assert '6 of 8 tensors of the heads' in told.problem
    assert 'another number of classes starts anew: bbox_head.retina_cls' in told.problem
    error = the_error(config, resume=True, **settings)
    assert error.cure == ('resume = False',)


def test_weights_of_the_backbone_that_are_thrown_away_are_told(case):
    config, detector, folder = case
    path = save(folder / 'all.pth', detector.state_dict())
    backbone = save(folder / 'backbone.pth', detector.backbone.state_dict())
    init_cfg = dict(type='Pretrained', checkpoint=backbone)
    _, findings = checked(
        config, load_from=path, **{'model.backbone.init_cfg': init_cfg}
    )
    (told,) = findings
    assert (told.severity, told.key) == ('warning', 'model.backbone.init_cfg')
    assert 'is thrown away' in told.problem
    assert told.cure == ('model.backbone.init_cfg = None',)


def test_heads_beside_weights_of_the_backbone(case):
    config, detector, folder = case
    backbone = save(folder / 'backbone.pth', detector.backbone.state_dict())
    weights = detector.state_dict()
    heads = {k: v for k, v in weights.items() if not k.startswith('backbone')}
    path = save(folder / 'heads.pth', heads)
    init_cfg = dict(type='Pretrained', checkpoint=backbone)
    settings = {'model.backbone.init_cfg': init_cfg, 'load_from': path}
    (told,) = checked(config, **settings)[1]
    assert told.severity == 'warning'
    assert 'the backbone keeps what init_cfg brings' in told.problem
    # A part of the one and a part of the other are no net.
    some = {k: v for k, v in weights.items() if 'layer4' not in k}
    settings['load_from'] = save(folder / 'some.pth', some)
    _, findings = checked(config, **settings)
    assert [f.key for f in errors_of(findings)] == ['load_from']


def test_the_detector_s_own_init_cfg_is_looked_into_as_well(case):
    config, detector, folder = case
    path = save(folder / 'all.pth', detector.state_dict())
    init_cfg = dict(type='Pretrained', checkpoint=path)
    assert checked(config, **{'model.init_cfg': init_cfg})[1] == []
    path = save(folder / 'backbone.pth', detector.backbone.state_dict())
    init_cfg = dict(type='Pretrained', checkpoint=path)
    error = the_error(config, **{'model.init_cfg': init_cfg})
    assert error.key == 'model.init_cfg.checkpoint'
    assert error.cure[0] == 'model.init_cfg = None'


def test_resuming_from_the_work_folder(case, tmp_path):
    config, detector, _ = case
    work = tmp_path / 'work'
    settings = dict(resume=True, work_dir=str(work))
    start, told = checked(config, **settings)[1]
    assert start.rule == 'random weights'
    # As in the first start of a job that a cluster may start again.
    assert (told.severity, told.cure) == ('warning', ('resume = False',))
    assert 'start at the first iteration' in told.problem
    work.mkdir()
    older = save(work / 'epoch_1.pth', detector.state_dict())
    newer = save(work / 'epoch_2.pth', detector.state_dict(), epoch=2, iter=20)
    # Whatever stands in it: the checkpoints themselves say which one is the newest.
    note = work / 'last_checkpoint'
    for text in (b'', b'\xff\x00\x80', str(work / 'epoch_3.pth').encode(), b'/'):
        note.write_bytes(text)
        assert checked(config, **settings)[1] == []
    content = (work / 'epoch_2.pth').read_bytes()
    (work / 'epoch_2.pth').write_bytes(content[:-5000])
    (told,) = checked(config, **settings)[1]
    assert f"goes on from '{older}' (epoch 1" in told.problem
    assert f"'{newer}' is cut off" in told.problem
    torch.save(detector.state_dict(), newer)
    (told,) = checked(config, **settings)[1]
    assert 'does not say how far a training came' in told.problem
    os.unlink(older)
    assert 'no checkpoint' in the_error(config, **settings).problem


def test_an_older_checkpoint_is_not_resumed_over_a_newer_one(case, tmp_path):
    config, detector, _ = case
    older = save(tmp_path / 'epoch_1.pth', detector.state_dict())
    save(tmp_path / 'epoch_2.pth', detector.state_dict(), epoch=2, iter=20)
    settings = dict(resume=True, work_dir=str(tmp_path), load_from=older)
    error = the_error(config, **settings)
    assert 'came further: it would be overwritten' in error.problem
    assert error.cure == ('load_from = None',)


@pytest.mark.parametrize('change', ['none', 'classes', 'depth', 'two stages'])
def test_what_is_said_is_what_mmengine_does(hosts, change, tmp_path):
    config, detector, _ = hosts
    weights = dict(detector.state_dict())
    if change == 'two stages':
        # Its region proposals become the head.
        weights = {k.replace('bbox_head.', 'rpn_head.'): v for k, v in weights.items()}
    path = save(tmp_path / 'weights.pth', weights)
    settings = {
        'classes': {'model.bbox_head.num_classes': 3},
        'depth': {'model.backbone.depth': 34},
    }.get(change, {})
    new, _ = checked(config, load_from=path, **settings)
    target = build(new)
    for value in target.state_dict().values():
        value.fill_(7)
    load_checkpoint(target, path, map_location='cpu')
    kept = {
        name
        for name, value in target.state_dict().items()
        if bool((value == 7).all()) and 'num_batches' not in name
    }
    (seen,) = DetectorConfig(new).starts
    assert set(seen.laid.lost) == kept
    assert bool(kept) == (change in ('classes', 'depth'))


def test_a_backbone_of_the_host(hosts):
    config, detector, folder = hosts
    path = save(folder / 'all.pth', detector.state_dict())
    assert checked(config, load_from=path)[1] == []
    path = save(folder / 'backbone.pth', detector.backbone.state_dict())
    error = the_error(config, load_from=path)
    assert error.cure[1].startswith('model.backbone.init_cfg')
    # Under a prefix, which mmengine has to be told.
    inside = {f'net.{k}': v for k, v in detector.backbone.state_dict().items()}
    path = save(folder / 'prefix.pth', inside)
    error = the_error(config, load_from=path)
    assert "'prefix': 'net.'" in error.cure[1]
    # And where it does not look, there is nothing for it in the backbone either.
    torch.save(dict(model=inside), path)
    assert the_error(config, load_from=path).cure == ('load_from = None',)


def test_a_test_does_not_start_with_another_detector_s_checkpoint(
    case, run_tool, tmp_path
):
    config, detector, folder = case
    path = tmp_path / 'config.py'
    config.dump(path)
    wrong = save(folder / 'backbone.pth', detector.backbone.state_dict())
    done = run_tool('tools/test.py', str(path), wrong)
    assert done.returncode == 1
    assert '0 of 100 tensors of the backbone' in done.stderr
    other, _ = checked(config, **{'model.bbox_head.num_classes': 3})
    wrong = save(folder / 'other.pth', build(other).state_dict())
    done = run_tool('tools/test.py', str(path), wrong)
    assert done.returncode == 1
    assert '6 of 8 tensors of the heads' in done.stderr


def test_nothing_is_downloaded_to_look_at_a_detector(tmp_path, monkeypatch):
    # mmdet's distilled detectors load their teacher when they are built.
    def refuse(*_, **__):
        raise AssertionError('asked the network')

    monkeypatch.setattr('socket.socket.connect', refuse)
    lad = load(tmp_path, 'mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py', **QUIET)
    assert lad.model.teacher_ckpt
    path = tmp_path / 'all.pth'
    lad.load_from = str(path)
    detector = DetectorConfig(lad)
    assert detector.whole is not None
    tensors = detector.whole.state_dict()
    # Of one number each, as the file of 300 MB would be.
    weights = {name: torch.zeros(()).expand(t.shape) for name, t in tensors.items()}
    save(path, weights)
    assert errors_of(check_config(lad)) == []


@pytest.mark.parametrize(
    ('odd', 'word'),
    [
        (lambda: torch.eye(2).to_sparse(), 'is sparse'),
        (lambda: torch.empty(2, device='meta'), 'no data'),
        (lambda: torch.zeros(1).expand(1 << 40), ''),
        (lambda: torch.ones(10**5).as_strided((5 * 10**4, 5 * 10**4), (1, 1)), 'claim'),
    ],
)
def test_odd_tensors_of_a_detector_are_told(tmp_path, odd, word):
    path = save(tmp_path / 'all.pth', {'a': odd()})
    seen = look_into(Start(str(path), 'load_from'), torch.nn.Linear(2, 2))
    assert word in seen.problem
    assert bool(word) == bool(seen.problem)


def test_names_of_a_detector_that_a_terminal_would_obey(tmp_path):
    path = save(tmp_path / 'all.pth', {'a\x1b[31m\nb': torch.ones(2)})
    seen = look_into(Start(str(path), 'load_from'), torch.nn.Linear(2, 2))
    assert 'control characters' in seen.problem
    assert seen.problem.isprintable()
