"""The rules that hold for every backbone, on one net of each family."""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_backbones.backbones.contract import Level, select_levels

LEVELS = [Level(0, 16, 4), Level(1, 32, 8), Level(2, 64, 16), Level(3, 64, 16)]
BACKBONES = {
    'res2net': dict(type='mmdet_backbones.Res2Net', depth=50),
    'res2net-v1b': dict(
        type='mmdet_backbones.Res2Net', depth=50, deep_stem=True, avg_down=True
    ),
    'timm-lite0': dict(
        type='mmdet_backbones.TIMMBackbone', model_name='tf_efficientnet_lite0'
    ),
    'timm-resnet18': dict(type='mmdet_backbones.TIMMBackbone', model_name='resnet18'),
    'timm-convnext': dict(
        type='mmdet_backbones.TIMMBackbone', model_name='convnext_atto'
    ),
}


def build(name: str, **arguments) -> nn.Module:
    return MODELS.build({**BACKBONES[name], **arguments})


every = pytest.mark.parametrize('name', BACKBONES)


@every
def test_levels_are_those_of_a_forward_pass(name):
    net = build(name).eval()
    x = torch.rand(1, 3, 96, 160)
    outputs = net(x)
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(net.levels)
    for output, level in zip(outputs, net.levels, strict=True):
        height, width = -(-96 // level.stride), -(-160 // level.stride)
        assert output.shape == (1, level.channels, height, width)
    strides = [level.stride for level in net.levels]
    assert strides == sorted(strides)


@every
def test_strides_and_indices_choose_the_same_levels(name):
    net = build(name, out_strides=(8, 32))
    assert net.out_strides == (8, 32)
    assert build(name, out_indices=net.out_indices).levels == net.levels
    assert net.out_channels == tuple(level.channels for level in net.levels)


@every
def test_a_level_that_is_not_there_lists_those_that_are(name):
    count = len(build(name).levels)
    with pytest.raises(ValueError, match=f'no level of index {count + 2}') as error:
        build(name, out_indices=(1, count + 2))
    assert 'stride 8' in str(error.value)
    assert 'out_indices=' in str(error.value)


@every
def test_an_unknown_argument_is_an_error(name):
    with pytest.raises(TypeError, match='style'):
        build(name, style='pytorch')


@every
def test_every_parameter_gets_a_gradient_without_the_deepest_level(name):
    net = build(name, out_strides=(4, 8, 16)).train()
    sum(output.sum() for output in net(torch.rand(2, 3, 64, 96))).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@every
def test_frozen_stages_stay_as_they_are(name):
    net = build(name, frozen_stages=1)
    assert net.train() is net
    frozen = {n: v.clone() for n, v in net.state_dict().items()}
    names = [n for n, p in net.named_parameters() if not p.requires_grad]
    assert names
    assert len(names) < len(list(net.parameters()))
    sum(output.sum() for output in net(torch.rand(2, 3, 64, 96))).backward()
    for part in (p for stage in (0, 1) for p in net.stage_modules(stage)):
        for module in part.modules():
            assert not module.training
    changed = {n for n, v in net.state_dict().items() if not torch.equal(v, frozen[n])}
    first = {n.rsplit('.', 1)[0] for n in names}
    assert not {n for n in changed if n.rsplit('.', 1)[0] in first}


@every
def test_frozen_stages_out_of_range(name):
    with pytest.raises(ValueError, match='frozen_stages must be an integer from -1'):
        build(name, frozen_stages=40)


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval_stops_the_statistics(norm_eval):
    for name in ('res2net', 'timm-resnet18'):
        net = build(name, norm_eval=norm_eval).train()
        before = {n: b.clone() for n, b in net.named_buffers() if 'running' in n}
        net(torch.rand(2, 3, 64, 96))
        same = [torch.equal(b, dict(net.named_buffers())[n]) for n, b in before.items()]
        assert all(same) if norm_eval else not any(same)


@every
def test_modes_return_self_and_copies_work(name):
    net = build(name, frozen_stages=0)
    assert net.eval() is net
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(x)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            for mine, theirs in zip(expected, twin(x), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@every
def test_other_numbers_of_input_channels(name):
    net = build(name, in_channels=4).eval()
    assert len(net(torch.rand(1, 4, 64, 96))) == len(net.levels)


@every
def test_bfloat16_autocast(name):
    net = build(name).eval()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        outputs = net(torch.rand(1, 3, 64, 96))
    assert all(torch.isfinite(output.float()).all() for output in outputs)


@every
def test_with_cp_gives_the_same_gradients(name):
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net = build(name, with_cp=with_cp, norm_eval=True).train()
        torch.manual_seed(1)
        sum(o.square().mean() for o in net(torch.rand(2, 3, 64, 96))).backward()
        grads.append([p.grad for p in net.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_levels_by_default_are_all_of_them():
    assert select_levels(LEVELS, owner='Net') == tuple(LEVELS)


@pytest.mark.parametrize(
    ('chosen', 'error', 'message'),
    [
        ({'out_indices': (0,), 'out_strides': (4,)}, ValueError, 'not both'),
        ({'out_indices': 2}, TypeError, 'sequence of integers'),
        ({'out_indices': (0, '1')}, TypeError, 'sequence of integers'),
        ({'out_indices': ()}, ValueError, 'at least one'),
        ({'out_indices': (2, 1)}, ValueError, 'shallow to deep'),
        ({'out_indices': (1, 1)}, ValueError, 'once each'),
        ({'out_indices': (3, 9)}, ValueError, 'no level of index 9'),
        ({'out_indices': (-1,)}, ValueError, 'no level of index -1'),
    ],
)
def test_bad_choices_of_levels(chosen, error, message):
    with pytest.raises(error, match=message):
        select_levels(LEVELS, owner='Net', **chosen)


def test_a_stride_is_the_deepest_level_that_has_it():
    assert select_levels(LEVELS, None, (4, 16), owner='Net') == (LEVELS[0], LEVELS[3])


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match='no level of index 9, 7') as error:
        select_levels(LEVELS, (9, 7), owner='Net')
    assert 'shallow to deep' in str(error.value)
