"""Every role of a net is filled, and no block gets less than its file has for it."""

import re

import pytest
import timm
import torch
from torch import nn

from mmdet_backbones import PretrainedWeightsError
from mmdet_backbones.catalog.conversion import convert
from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights import load_pretrained
from mmdet_backbones.weights.loading.report import percent
from mmdet_backbones.weights.loading.roles import role_of
from mmdet_backbones.weights.names.dialect import is_computed
from mmdet_backbones.weights.names.libraries import without_root

NETS = {
    'ResNet': dict(type='ResNet', depth=18),
    'resnet18': dict(type='TorchvisionBackbone', model_name='resnet18'),
    **{
        name: dict(type='TIMMBackbone', model_name=name)
        for name in ('test_vit', 'test_convnext', 'test_efficientnet', 'regnetx_002')
    },
    'densenet121': dict(
        type='TorchvisionBackbone', model_name='densenet121', out_strides=(4, 8)
    ),
    'MobileNetV3': dict(type='MobileNetV3', arch='small'),
}


def build(config) -> nn.Module:
    return MODELS.build({**config, 'type': f'mmdet_backbones.{config["type"]}'})


@pytest.fixture
def load(tmp_path):
    def load(net, state_dict, **arguments):
        path = str(tmp_path / 'net.pth')
        torch.save(state_dict, path)
        return load_pretrained(net, path, **arguments)

    return load


@pytest.fixture
def refused(load):
    """Load a state dict, which must be refused without touching the net."""

    def refuse(net, state_dict, **arguments):
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with pytest.raises(PretrainedWeightsError) as error:
            load(net, state_dict, **arguments)
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key]), key
        return str(error.value)

    return refuse


def line_of(message: str) -> dict:
    """Arguments of the line that accepts the file as it is."""
    (found,) = re.findall(r"init_cfg=(dict\(type='Pretrained', .*\))$", message, re.M)
    arguments = eval(found)
    del arguments['type'], arguments['checkpoint']
    return arguments


@pytest.mark.parametrize(
    ('key', 'role'),
    [
        ('timm_model.model.blocks.3.ls1.gamma', 'blocks.*.ls1.gamma'),
        ('timm_model.stages_2.blocks.0.gamma', 'stages_*.blocks.*.gamma'),
        ('body.features.denseblock2.denselayer11.norm1.weight',
         'features.denseblock*.denselayer*.norm1.weight'),
        ('layer4.1.conv2.weight', 'layer*.*.conv2.weight'),
        ('conv1.weight', 'conv1.weight'),
        ('timm_model.s1.b2.conv3.bn.weight', 's*.b*.conv3.bn.weight'),
        ('timm_model.model.pos_embed', 'pos_embed'),
        ('norm2.bias', 'norm2.bias'),
    ],
)  # fmt: skip
def test_roles_are_names_without_the_numbers_of_blocks(key, role):
    assert role_of(key) == role


# Those of many roles take 10 s each.
MANY_ROLES = ('ResNet', 'regnetx_002', 'densenet121', 'MobileNetV3')


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if name in MANY_ROLES else ())
        for name in NETS
    ],
)
def test_a_file_that_lacks_any_single_role_is_refused_and_the_role_named(refused, name):
    net = build(NETS[name])
    state = net.state_dict()
    roles = {role_of(key) for key in state if not is_computed(key)}
    assert len(roles) > 5
    for role in roles:
        left = {key: v for key, v in state.items() if role_of(key) != role}
        count = len(state) - len(left)
        message = refused(net, left, allow_random_frozen=True)
        assert f'{role} ({count} tensor' in message or 'at least 95% are' in message
        refused(net, left, allow_random_frozen=True, min_coverage=0)


@pytest.mark.parametrize('name', NETS)
def test_the_line_that_accepts_a_file_with_a_gap_does(load, refused, name):
    net = build(NETS[name])
    state = {k: v for k, v in net.state_dict().items() if not k.endswith('bias')}
    message = refused(net, state)
    report = load(net, state, **line_of(message))
    assert report.missing
    assert '100.0%' not in str(report).splitlines()[0]


@pytest.mark.parametrize('name', NETS)
def test_one_tensor_of_a_role_needs_a_bound_of_ones_own(load, refused, name):
    net = build(NETS[name])
    state = net.state_dict()
    roles = [role_of(key) for key in state]
    key = next(
        k for k, r in zip(state, roles, strict=True)
        if roles.count(r) > 1 and not is_computed(k)
    )  # fmt: skip
    left = {k: v for k, v in state.items() if k != key}
    message = refused(net, left)
    assert f'{role_of(key)} (1 of {roles.count(role_of(key))} tensors)' in message
    for arguments in (
        line_of(message), dict(min_coverage=0.5), dict(allow_missing=[role_of(key)]),
        dict(allow_missing=[key]), dict(allow_missing=[without_root(key)]),
    ):  # fmt: skip
        report = load(net, left, **arguments)
        assert report.missing == (key,)
        assert '100.0%' not in str(report).splitlines()[0]


@pytest.mark.parametrize('name', ['ResNet', 'test_vit', 'test_convnext', 'regnetx_002'])
@pytest.mark.parametrize('extra', ['extra', 'se.0.weight', 'q.1.2.b'])
def test_a_tensor_that_a_block_does_not_take_is_refused(load, refused, name, extra):
    net = build(NETS[name])
    state = net.state_dict()
    keys = [key for key in state if re.search(r'\d\..*\.', without_root(key))]
    generator = torch.Generator().manual_seed(len(extra))
    key = keys[int(torch.randint(len(keys), (), generator=generator))]
    block = re.match(r'.*\d(?=\.)', key)[0]
    added = f'{block}.{extra}'
    message = refused(net, state | {added: torch.ones(3)})
    assert f'{role_of(added)} (1 tensor)' in message
    for arguments in (line_of(message), dict(allow_unexpected=[added])):
        assert load(net, state | {added: torch.ones(3)}, **arguments).coverage == 1


@pytest.mark.parametrize(
    ('net', 'source'),
    [
        (dict(type='ResNet', depth=50), 'seresnet50'),
        (dict(type='TIMMBackbone', model_name='resnet50'), 'seresnet50'),
        (dict(type='TIMMBackbone', model_name='resnet50'), 'ecaresnet50d'),
        (VIT := dict(type='TIMMBackbone', model_name='vit_small_patch16_224',
                     out_strides=(16,)), 'vit_small_patch16_dinov3'),
        (VIT, 'vit_small_patch14_dinov2'),
        (VIT, 'deit3_small_patch16_224'),
    ],
)  # fmt: skip
def test_of_which_net_a_file_is(refused, net, source):
    state = timm.create_model(source).state_dict()
    message = refused(build(net), state)
    assert source in message or 'Cause: another architecture' in message


@pytest.mark.parametrize(
    'name', ['reg_token', 'register_tokens', 'storage_tokens', 'norm_pre.weight',
             'rel_pos_bias.relative_position_bias_table', 'patch_embed.norm.weight'],
)  # fmt: skip
def test_tensors_of_a_whole_net_that_change_its_features_are_refused(refused, name):
    state = timm.create_model('test_vit').state_dict() | {name: torch.ones(1, 4, 64)}
    assert name in refused(build(NETS['test_vit']), state)


def test_positions_of_a_net_that_has_none_are_refused(refused):
    net = dict(type='TIMMBackbone', model_name='vit_relpos_small_patch16_224')
    net = build(dict(**net, out_strides=(16,)))
    state = timm.create_model('vit_relpos_small_patch16_224').state_dict()
    assert 'pos_embed' in refused(net, state | {'pos_embed': torch.ones(1, 196, 384)})


@pytest.mark.parametrize(
    'name', ['mask_token', 'decoder_blocks.0.attn.qkv.weight', 'decoder_pos_embed',
             'head.weight', 'head_dist.weight', 'projector.0.weight', 'fc_norm.weight'],
)  # fmt: skip
def test_what_only_a_training_needs_does_no_harm(load, name):
    state = timm.create_model('test_vit').state_dict() | {name: torch.ones(4, 64)}
    assert load(build(NETS['test_vit']), state).coverage == 1


@pytest.mark.parametrize(
    ('config', 'source'),
    [
        (dict(type='TIMMBackbone', model_name=name, out_indices=indices), name)
        for name, indices in (
            ('test_vit', (1,)), ('test_convnext', (0, 1)), ('hrnet_w18_small', (0, 1)),
            ('mobilenetv3_small_050', (1, 2)), ('densenet121', (1, 2)),
            ('swin_tiny_patch4_window7_224', (0, 1)),
        )
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)  # fmt: skip
def test_a_net_that_was_cut_takes_the_file_of_the_whole(load, config, source):
    state = timm.create_model(source).state_dict()
    assert load(build(config), state).coverage == 1


@pytest.mark.parametrize(
    ('model', 'indices'),
    [
        (dict(type='VisionTransformer', arch='deit-tiny', img_size=224), (3,)),
        pytest.param(dict(type='HRNet', arch='w18'), (0, 1), marks=pytest.mark.slow),
        (dict(type='MobileNetV3', arch='small'), (3, 8)),
        (dict(type='EfficientNet', arch='b0'), (2, 3)),
        (dict(type='ConvNeXt', arch='atto'), (0, 1)),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_a_net_of_mmpretrain_that_was_cut_takes_the_file_of_the_whole(
    load, model, indices
):
    whole = build(dict(type='MMPretrainBackbone', model=model))
    cut = build(dict(type='MMPretrainBackbone', model=model, out_indices=indices))
    assert load(cut, whole.state_dict()).coverage == 1


def test_norms_that_only_a_detector_has_may_be_missing_together(load, refused):
    net = build(dict(type='ConvNeXt', arch='atto'))
    state = net.state_dict()
    classifier = {
        k: v for k, v in state.items() if k[:5] not in ('norm0', 'norm1', 'norm2')
    }
    report = load(net, classifier)
    assert len(report.missing) == 6
    assert report.coverage < 1
    assert '100.0%' not in str(report).splitlines()[0]
    some = {k: v for k, v in state.items() if not k.startswith('norm0')}
    assert 'norm0.weight' in refused(net, some)
    half = {k: v for k, v in classifier.items() if k != 'norm3.weight'}
    assert 'norm3.weight' in refused(net, half)


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        (dict(allow_missing=['blocks.*.ls1.gamma']), 'allow_missing'),
        (dict(allow_unexpected=['se.*']), 'allow_unexpected'),
    ],
)
def test_a_permission_that_nothing_needs_is_a_mistake(refused, arguments, word):
    net = build(NETS['test_vit'])
    message = refused(net, net.state_dict(), **arguments)
    assert f'{word} permits nothing by' in message
    assert f'Write no {word}' in message


def test_permissions_are_lists_of_names():
    with pytest.raises(TypeError, match='allow_missing must be a list'):
        load_pretrained(build(NETS['ResNet']), 'net.pth', allow_missing='conv1.*')


def test_what_is_permitted_by_name_does_not_count(load):
    net = build(NETS['ResNet'])
    state = {k: v for k, v in net.state_dict().items() if not k.startswith('layer4')}
    allowed = dict(allow_missing=['layer4.*'], allow_random_frozen=True)
    report = load(net, state, **allowed)
    assert report.coverage < 0.5


def test_a_conversion_says_the_same_and_takes_the_same_permissions(tmp_path):
    state = timm.create_model('test_vit').state_dict()
    state = {k: v for k, v in state.items() if not k.endswith('norm1.weight')}
    source, target = str(tmp_path / 'net.pth'), str(tmp_path / 'ours.pth')
    torch.save(state, source)
    with pytest.raises(PretrainedWeightsError, match=r'blocks\.\*\.norm1\.weight'):
        convert(source, 'timm/test_vit', target)
    done = convert(source, 'timm/test_vit', target, allow_missing=['*.norm1.weight'])
    assert done.report.missing


def test_a_hundred_percent_is_the_whole():
    assert percent(1.0) == '100.0%'
    assert percent(0.99999) == '99.9%'
    assert percent(0.5) == '50.0%'
