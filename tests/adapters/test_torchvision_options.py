"""torchvision's nets as backbones: freezing, recomputing and other options."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from mmdet_backbones.adapters.torchvision.backbone import TorchvisionBackbone
from mmdet_backbones.adapters.torchvision.structure import structure_of

# Small ones, each of another kind: residual, plain, NHWC, tokens, padded windows.
FEW = (
    'resnet18',
    'vgg11_bn',
    'swin_t',
    'vit_b_32',
    pytest.param('maxvit_t', marks=pytest.mark.slow),
)


def image(height=64, width=96, batch=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'model_name': 'resnet5'}, ValueError, 'did you mean resnet50'),
        ({'model_name': 'fcn_resnet50'}, ValueError, 'no classification model'),
        ({'model_name': '???'}, ValueError, 'torchvision.models.list_models'),
        ({'pretrained': True}, TypeError, 'pretrained'),
        ({'out_strides': (64,)}, ValueError, 'no level of stride 64'),
        ({'in_channels': 0}, ValueError, 'positive integer'),
        ({'frozen_stages': 5}, ValueError, 'from -1'),
        ({'drop_path_rate': 0.1}, ValueError, 'leave drop_path_rate out'),
        ({'image_size': 384}, ValueError, 'leave image_size out'),
        ({'drop_path_rate': '0.1'}, ValueError, 'number from 0 to below 1'),
        ({'norm_layer': 'GN'}, ValueError, "'FrozenBN' or None"),
        ({'output_stride': 8}, ValueError, 'leave output_stride out'),
    ],
)
def test_mistakes_in_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        TorchvisionBackbone(**{'model_name': 'resnet18', **arguments})


@pytest.mark.parametrize(
    ('name', 'stride', 'arguments'),
    [
        ('resnet50', 8, dict(replace_stride_with_dilation=[False, True, True])),
        ('mobilenet_v3_small', 16, dict(dilated=True)),
    ],
)
def test_output_stride_dilates_the_deep_stages(name, stride, arguments):
    net = TorchvisionBackbone(name, output_stride=stride).eval()
    assert net.out_strides[-1] == stride == max(net.out_strides)
    host = models.get_model(name, weights=None, **arguments).eval()
    host.load_state_dict(net.body.state_dict(), strict=False)
    node = list(net.return_nodes)[-1]
    with torch.no_grad():
        (theirs,) = create_feature_extractor(host, [node])(image()).values()
        assert torch.equal(net(image())[-1], theirs)
    with pytest.raises(ValueError, match='output_stride=16 or leave'):
        TorchvisionBackbone(name, output_stride=7)


def test_stages_do_not_depend_on_the_levels():
    def frozen(**choice):
        net = TorchvisionBackbone('resnet18', frozen_stages=1, **choice)
        return {n for n, p in net.named_parameters() if not p.requires_grad}

    expected = frozen()
    assert {name.split('.')[1] for name in expected} == {'conv1', 'bn1', 'layer1'}
    assert frozen(out_strides=(8, 16, 32)) == expected
    assert frozen(out_strides=(4, 8)) == expected
    assert frozen(return_nodes=['layer2.0', 'layer3']) == expected


@pytest.mark.parametrize(
    ('name', 'stem'),
    [
        ('resnet18', ['conv1', 'bn1']),
        ('swin_t', ['features.0']),
        ('vit_b_32', ['conv_proj', 'class_token', 'encoder.pos_embedding']),
        ('shufflenet_v2_x0_5', ['conv1']),
    ],
)
def test_every_stage_holds_something_and_the_first_is_the_stem(name, stem):
    stages = structure_of(name).stages
    assert sorted(stages[0]) == sorted(stem)
    assert all(stages)


@pytest.mark.parametrize('name', FEW)
def test_no_parameter_without_gradient_for_any_choice(name):
    for choice in ({}, {'out_indices': (0,)}, {'out_indices': (0, 2)}):
        with torch.device('meta'):
            net = TorchvisionBackbone(name, **choice).train()
            sum(output.sum() for output in net(image())).backward()
        assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_a_frozen_stage_drops_no_branches():
    # One graph serves both modes, so a block follows its own mode.
    net = TorchvisionBackbone('swin_t', out_strides=(4,), frozen_stages=1).train()
    net.body.get_submodule('features.1.1').stochastic_depth.p = 0.9
    with torch.no_grad():
        assert torch.equal(net(image())[0], net(image())[0])


@pytest.mark.parametrize(
    'name',
    ['resnet18', 'swin_t', pytest.param('maxvit_t', marks=pytest.mark.slow)],
)
@pytest.mark.parametrize('with_cp', [False, True])
def test_copies_and_pickles_switch_modes(name, with_cp):
    net = TorchvisionBackbone(name, out_indices=(0, 1), with_cp=with_cp)
    net.eval()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with torch.no_grad():
            for mine, theirs in zip(net(image()), twin(image()), strict=True):
                assert torch.equal(mine, theirs)
        twin.train()
        sum(output.sum() for output in twin(image())).backward()
        assert all(p.grad is not None for p in twin.parameters())
        assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    'name',
    [
        'resnet18',
        'swin_t',
        pytest.param('vit_b_32', marks=pytest.mark.slow),
        pytest.param('maxvit_t', marks=pytest.mark.slow),
    ],
)
def test_recomputed_blocks_give_the_same_gradients(name):
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net = TorchvisionBackbone(name, out_indices=(0, 1), with_cp=with_cp).train()
        torch.manual_seed(1)
        sum(o.square().mean() for o in net(image())).backward()
        results.append(
            ([p.grad for p in net.parameters()], dict(net.named_buffers()), net)
        )
    (grads, buffers, _), (grads_cp, buffers_cp, net) = results
    torch.testing.assert_close(grads_cp, grads)
    assert buffers_cp.keys() == buffers.keys()
    for key, value in buffers.items():
        torch.testing.assert_close(buffers_cp[key], value)
    assert any('forward' in vars(module) for module in net.body.modules())


@pytest.mark.parametrize('name', ['alexnet', 'vgg11_bn'])
def test_nets_without_blocks_cannot_recompute_them(name):
    with (
        torch.device('meta'),
        pytest.raises(ValueError, match='no blocks to recompute'),
    ):
        TorchvisionBackbone(name, with_cp=True)


def test_a_node_inside_a_recomputed_block_is_explained():
    with pytest.raises(ValueError, match='lies inside a block') as error:
        TorchvisionBackbone('resnet18', return_nodes=['layer1.0.bn1'], with_cp=True)
    assert 'with_cp=False' in str(error.value)
    TorchvisionBackbone('resnet18', return_nodes=['layer1.0'], with_cp=True)


@pytest.mark.parametrize(
    'name', ['swin_t', pytest.param('efficientnet_b0', marks=pytest.mark.slow)]
)
def test_drop_path_rate_rises_to_the_given_one(name):
    with torch.device('meta'):
        net = TorchvisionBackbone(name, drop_path_rate=0.4)
        half = TorchvisionBackbone(name, drop_path_rate=0.4, out_strides=(4, 8))
    rates = [m.p for m in net.modules() if type(m).__name__ == 'StochasticDepth']
    assert rates == sorted(rates)
    assert rates[0] < 0.1
    # The last block of this EfficientNet has no residual to drop.
    assert rates[-1] == pytest.approx(0.35 if name == 'efficientnet_b0' else 0.4, 0.1)
    kept = [m.p for m in half.modules() if type(m).__name__ == 'StochasticDepth']
    assert kept == rates[: len(kept)]
    with pytest.raises(ValueError, match='from 0 to below 1'):
        TorchvisionBackbone(name, drop_path_rate=1.0)


def test_frozen_batch_normalisation():
    net = TorchvisionBackbone('resnet18', norm_layer='FrozenBN')
    plain = TorchvisionBackbone('resnet18').train()
    plain(image())
    net.load_state_dict(plain.eval().state_dict())
    before = copy.deepcopy(net.state_dict())
    for mine, theirs in zip(net.train()(image()), plain(image()), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert not [n for n, _ in net.named_parameters() if 'bn' in n]
    with pytest.raises(ValueError, match='no batch normalisation'):
        TorchvisionBackbone('swin_t', norm_layer='FrozenBN')


@pytest.mark.parametrize('name', FEW)
def test_more_input_channels(name):
    with torch.device('meta'):
        net = TorchvisionBackbone(name, in_channels=4, out_indices=(0,))
        assert net(image(channels=4))[0].shape[1] == net.out_channels[0]


def test_statistics_over_several_gpus():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(TorchvisionBackbone('resnet18'))
    kinds = {type(module).__name__ for module in net.modules()}
    assert 'SyncBatchNorm' in kinds
    assert 'BatchNorm2d' not in kinds
    assert len(net.eval()(image())) == 5


def test_image_size_of_a_vit_makes_room_for_larger_weights():
    with torch.device('meta'):
        net = TorchvisionBackbone('vit_b_32', image_size=384, out_indices=(0,))
    assert net.body.encoder.pos_embedding.shape == (1, 145, 768)
    with pytest.raises(ValueError, match='multiple of 32'):
        TorchvisionBackbone('vit_b_32', image_size=250)
