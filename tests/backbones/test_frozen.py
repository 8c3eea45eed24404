"""A backbone that is frozen as a whole, by ``frozen_stages='all'``."""

import copy
import pickle

import pytest
import torch
from planted import R18_FPN, RETINANET, load, merged
from small_detectors import OURS, small_config
from small_detectors import build as small_detector
from test_contract import build, image
from variants import every

from mmdet_backbones.check.config import check_config
from mmdet_backbones.errors import PretrainedWeightsError
from mmdet_backbones.inference.fusion import fuse_for_inference
from mmdet_backbones.pictures.levels import view_levels


def same(a, b, **tolerances):
    for mine, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerances)


@every
def test_nothing_of_it_trains_and_it_computes_the_same(name):
    net, plain = build(name, frozen_stages='all', with_cp=True), build(name).eval()
    plain.load_state_dict(net.state_dict())
    assert not any(p.requires_grad for p in net.parameters())
    assert net.train() is net
    assert not any(module.training for module in net.modules())
    x = image(1).requires_grad_()
    outputs = net(x)
    assert not any(output.requires_grad for output in outputs)
    with torch.no_grad():
        same(outputs, plain(x), rtol=0, atol=0)
    before = plain.state_dict()
    assert all(torch.equal(b, before[n]) for n, b in net.state_dict().items())
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        same(twin.train()(x), outputs, rtol=0, atol=0)


@pytest.mark.parametrize('name', ['resnet18', 'timm-resnet18', 'mobilenet-v2'])
def test_it_is_folded_and_runs_under_autocast(name):
    net = build(name, frozen_stages='all').train()
    x = image(1)
    same(fuse_for_inference(net)(x), net(x), rtol=1e-3, atol=1e-4)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net(x)
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert not any(output.requires_grad for output in outputs)


@pytest.mark.parametrize('wrong', ['every', 'ALL', True, None, -2])
def test_another_word_is_refused_with_the_one_to_write(wrong):
    with pytest.raises(ValueError, match="'all' \\(the whole net") as error:
        build('timm-resnet18', frozen_stages=wrong)
    written = error.value.settings['frozen_stages']
    assert written == ('all' if wrong == 'ALL' else -1)
    build('timm-resnet18', frozen_stages=written)


def test_what_a_file_lacks_would_stay_random(tmp_path):
    state = build('resnet18').state_dict()
    state = {n: v for n, v in state.items() if not n.startswith('layer4')}
    torch.save(state, tmp_path / 'part.pth')
    init_cfg = dict(
        type='Pretrained',
        checkpoint=str(tmp_path / 'part.pth'),
        allow_missing=['layer*'],
        min_coverage=0.1,
    )
    net = build('resnet18', frozen_stages='all', init_cfg=init_cfg)
    with pytest.raises(
        PretrainedWeightsError, match="frozen_stages='all' freezes random values"
    ) as error:
        net.init_weights()
    assert 'frozen_stages=3' in str(error.value)
    build(
        'resnet18', frozen_stages=3, norm_eval=False, init_cfg=init_cfg
    ).init_weights()


def detector(tmp_path, backbone, **settings):
    net = dict(type='mmdet_backbones.ResNet', depth=18, norm_eval=False)
    model = dict(R18_FPN)
    model['backbone'] = dict(net, _delete_=True, **backbone)
    return load(tmp_path, RETINANET, model=model, **settings)


def test_the_check_accuses_no_factor_of_a_frozen_backbone(tmp_path):
    torch.save(build('resnet18').state_dict(), tmp_path / 'net.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth'))
    factors = dict(custom_keys=dict(backbone=dict(lr_mult=0.0)))
    config = detector(
        tmp_path,
        dict(frozen_stages='all', init_cfg=pretrained),
        optim_wrapper=dict(paramwise_cfg=factors),
        auto_scale_lr=dict(enable=True),
    )
    told = check_config(config)
    assert [f for f in told if f.rule not in ('data', 'preprocessing')] == []


def test_the_check_tells_of_random_values(tmp_path):
    config = detector(tmp_path, dict(frozen_stages='all', init_cfg=None))
    found = next(f for f in check_config(config) if f.rule == 'frozen and random')
    assert "frozen_stages='all' keeps 11,1" in found.problem
    assert found.cure == ('model.backbone.frozen_stages = -1',)


def test_what_its_levels_see_is_drawn_all_the_same(tmp_path):
    model = merged(OURS, backbone=dict(frozen_stages='all'))
    detector = small_detector(small_config(tmp_path, model)).eval()
    views = view_levels(detector, torch.rand(1, 3, 64, 64), (64, 64), probes=1)
    assert all(view.field.any() for view in views)
    assert not detector.backbone(torch.rand(1, 3, 64, 64))[0].requires_grad
