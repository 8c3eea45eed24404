"""ResNet: levels, arguments and their mistakes, freezing."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_backbones.backbones.residual.resnet import VARIANTS, ResNet
from mmdet_backbones.levels import IMAGENET

TINY = dict(stage_blocks=(1, 2, 1, 1), base_channels=16)
DC5 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
FROZEN = dict(type='mmdet_backbones.FrozenBN')
# Classification nets of 1000 classes, by torchvision and, for the last two, timm.
PARAMETERS = {
    'resnet18': 11_689_512,
    'resnet34': 21_797_672,
    'resnet50': 25_557_032,
    'resnet101': 44_549_160,
    'resnet152': 60_192_808,
    'resnext50_32x4d': 25_028_904,
    'resnext101_64x4d': 83_455_272,
    'wide_resnet50_2': 68_883_240,
    'wide_resnet101_2': 126_886_696,
    'resnet50_d': 25_576_264,
    'resnext101_32x4d': 44_177_704,
}


def tiny(**kwargs) -> ResNet:
    torch.manual_seed(0)
    return ResNet(**{**TINY, 'norm_eval': False, **kwargs})


def image(channels=3, height=64, width=96, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


def backward(backbone, x):
    sum(out.square().mean() for out in backbone(x)).backward()


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        backbone = ResNet(**VARIANTS[name])
    count = sum(parameter.numel() for parameter in backbone.parameters())
    head = 1000 * (backbone.out_channels[-1] + 1)
    assert count + head == PARAMETERS[name]


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_can_be_built(name):
    with torch.device('meta'):
        backbone = ResNet(**VARIANTS[name])
    first = 64 if name in ('resnet18', 'resnet34') else 256
    assert backbone.out_channels == (first, 2 * first, 4 * first, 8 * first)
    assert backbone.out_strides == (4, 8, 16, 32)


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(block='basic'),
        dict(deep_stem=True, avg_down=True),
        dict(groups=2, base_width=8),
        dict(base_width=32),
        dict(stride_in_1x1=True),
        DC5,
        dict(block='basic', **DC5),
        dict(strides=(2, 2, 1, 3), avg_down=True, stride_in_1x1=True),
        dict(stage_blocks=(1, 1, 1, 1, 2)),
        dict(stage_blocks=(1, 1, 1, 1, 2), block='basic'),
        dict(stage_blocks=(1, 1), stem_channels=24),
        dict(num_stages=3),
    ],
)
@pytest.mark.parametrize('size', [(64, 96), (97, 131)])
def test_levels_are_what_forward_gives(kwargs, size):
    backbone = tiny(**kwargs).eval()
    outputs = backbone(image(3, *size, batch=1))
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(backbone.levels)
    for level, output in zip(backbone.levels, outputs, strict=True):
        rounded_up = [-(-side // level.stride) for side in size]
        assert list(output.shape) == [1, level.channels, *rounded_up]


def test_depth_with_a_fifth_stage():
    with torch.device('meta'):
        backbone = ResNet(depth=50, stage_blocks=(3, 4, 6, 3, 2))
        basic = ResNet(depth=18, stage_blocks=(2, 2, 2, 2, 2), out_strides=(32, 64))
    assert [len(getattr(backbone, name)) for name in backbone.res_layers] == [
        *(3, 4, 6, 3),
        2,
    ]
    assert backbone.out_channels == (256, 512, 1024, 2048, 4096)
    assert backbone.out_strides == (4, 8, 16, 32, 64)
    assert basic.out_channels == (512, 1024)


def test_dc5_keeps_the_size_and_dilates_the_last_stage():
    backbone = tiny(**DC5)
    assert backbone.out_strides == (4, 8, 16, 16)
    conv = backbone.layer4[0].conv2
    assert (conv.stride, conv.dilation, conv.padding) == ((1, 1), (2, 2), (2, 2))
    assert backbone.layer4[0].downsample[0].stride == (1, 1)
    assert [level.index for level in tiny(out_strides=(8, 16), **DC5).levels] == [1, 3]


def test_levels_by_index_and_by_stride_are_the_same_maps():
    by_index = tiny(out_indices=(1, 2)).eval()
    by_stride = tiny(out_strides=(8, 16)).eval()
    assert by_index.levels == by_stride.levels
    for a, b in zip(by_index(image()), by_stride(image()), strict=True):
        assert torch.equal(a, b)


def test_stages_above_the_deepest_level_are_not_built():
    backbone = tiny(out_indices=(0, 1))
    assert not [k for k in backbone.state_dict() if k.startswith(('layer3', 'layer4'))]
    backward(backbone, image())
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


BASIC = dict(stage_blocks=(1, 1, 1, 1), block='basic')
DCN = dict(dcn=dict(type='DCN'), stage_with_dcn=(False, True, True, True))


@pytest.mark.parametrize(
    ('kwargs', 'parts'),
    [
        (dict(depth=26), ['depth', '18, 34, 50, 101, 152', '26']),
        (dict(depth='50'), ['depth', "'50'", 'depth=50']),
        (dict(depth=50, stage_blocks=(2, 2)), ['not both', '(3, 4, 6, 3)', 'depth=No']),
        (dict(stage_blocks=(1, 0)), ['stage_blocks', '(1, 0)', '(3, 4, 6, 3)']),
        (dict(depth=50, num_stages=5), ['1 to 4', '5', '(3, 4, 6, 3, 2)']),
        (dict(block='plain'), ['block', "'basic' or 'bottleneck'", "'plain'"]),
        (dict(depth=50, block='basic'), ['bottleneck', 'depth=None', '(3, 4, 6, 3)']),
        (dict(groups=0), ['groups', 'positive', '0']),
        (dict(base_width='4'), ['base_width', "'4'"]),
        (dict(base_width=96), ['base_width', '256', '96', 'base_width=128']),
        (dict(in_channels=3.0), ['in_channels', '3.0']),
        (dict(strides=(1, 2, 2)), ['strides', '4', '(1, 2, 2)', '(1, 2, 2, 2)']),
        (dict(dilations=2), ['dilations', '(1, 1, 1, 1)']),
        (dict(norm_cfg='BN'), ['norm_cfg', "dict(type='BN')"]),
        (dict(norm_cfg=dict(type='FrozenBN')), ["'mmdet_backbones.FrozenBN'"]),
        (dict(norm_cfg=dict(FROZEN, requires_grad=True)), ['never', '_delete_=True']),
        (dict(conv_cfg={}), ['conv_cfg', "dict(type='Conv2d')"]),
        (dict(frozen_stages=5), ['frozen_stages', '-1', '4', '5']),
        (dict(freeze_at=6), ['freeze_at', 'from 0', 'to 5', '6']),
        (dict(freeze_at=-1), ['freeze_at', '-1']),
        (dict(freeze_at=2, frozen_stages=1), ['not both', 'frozen_stages=n-1']),
        (dict(freeze_at=2, frozen_stages=-1), ['not both']),
        (dict(out_indices=(1, 2, 7)), ['7', '3 (2048 channels, stride 32)']),
        (dict(out_strides=(8, 64)), ['stride 64', 'stride 32']),
        (dict(out_indices=(1,), out_strides=(8,)), ['not both']),
        (dict(BASIC, groups=32), ['groups', 'bottleneck', 'depth=50']),
        (dict(BASIC, base_width=32, stride_in_1x1=True), ['base_width, stride_in_1x1']),
        (dict(BASIC, **DCN), ['dcn', 'basic', "block='bottleneck'"]),
        (dict(depth=18, plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.5),
                                      position='after_conv3')]), ['plugins', 'basic']),
        (dict(DCN, conv_cfg=dict(type='ConvWS')), ['conv_cfg=None', 'ConvWS']),
        (dict(DCN, stage_with_dcn=(True,)), ['stage_with_dcn', '4', '(True,)']),
        (
            dict(DCN, groups=32, dcn=dict(type='DCN', groups=2, stride=1)),
            ['does not take stride, groups'],
        ),
        (
            dict(plugins=[dict(cfg=dict(type='Kontext'), position='after_conv3')]),
            ["'Kontext'", 'registry'],
        ),
    ],
)  # fmt: skip
def test_a_mistake_says_what_is_allowed_and_what_was_given(kwargs, parts):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        ResNet(**kwargs)
    assert [part for part in parts if part not in str(raised.value)] == []


def test_all_mistakes_are_listed_at_once():
    wrong = dict(
        block='x', groups=-1, strides=(1,), freeze_at=9, norm_cfg=3, base_channels=0
    )
    with pytest.raises(ValueError, match='ResNet cannot be built') as raised:
        ResNet(**wrong)
    assert [name for name in wrong if name not in str(raised.value)] == []


@pytest.mark.parametrize('argument', ['style', 'pretrained'])
def test_an_unknown_argument_is_a_type_error(argument):
    with pytest.raises(TypeError, match=argument):
        ResNet(**{argument: 'pytorch'})


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('freeze_at', [0, 1, 3, 5])
def test_freeze_at_is_frozen_stages_plus_one(freeze_at, deep_stem):
    def frozen(backbone):
        return {n for n, p in backbone.named_parameters() if not p.requires_grad}

    backbone = tiny(freeze_at=freeze_at, deep_stem=deep_stem)
    assert backbone.frozen_stages == freeze_at - 1
    stem = ('conv1', 'bn1') if not deep_stem else ('stem',)
    parts = stem * (freeze_at >= 1) + tuple(f'layer{i}' for i in range(1, freeze_at))
    names = [name for name, _ in backbone.named_parameters()]
    assert frozen(backbone) == {name for name in names if name.startswith(parts)}
    twin = tiny(frozen_stages=freeze_at - 1, deep_stem=deep_stem)
    assert frozen(twin) == frozen(backbone)

    before = {k: v.clone() for k, v in backbone.named_buffers()}
    backbone.train()(image())
    for name, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[name]) is name.startswith(parts), name


def test_nothing_is_frozen_by_default_and_norm_eval_is_on():
    backbone = ResNet(**TINY).train()
    assert backbone.frozen_stages == -1
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize('requires_grad', [False, True])
def test_batch_normalisation_without_gradient(requires_grad):
    norm_cfg = dict(type='BN', requires_grad=requires_grad)
    backbone = tiny(norm_cfg=norm_cfg)
    assert norm_cfg == dict(type='BN', requires_grad=requires_grad)
    assert backbone.layer2[0].bn2.weight.requires_grad is requires_grad
    assert backbone.conv1.weight.requires_grad


def test_other_normalisations_and_convolutions():
    norm_cfg = dict(type='GN', num_groups=2, requires_grad=False)
    backbone = tiny(norm_cfg=norm_cfg, conv_cfg=dict(type='ConvWS'))
    assert isinstance(backbone.layer1[0].gn3, nn.GroupNorm)
    assert not backbone.gn1.weight.requires_grad
    assert type(backbone.layer2[1].conv2).__name__ == 'ConvWS2d'
    backward(backbone, image())


@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_input_channels(channels):
    assert len(tiny(in_channels=channels)(image(channels))) == 4


def test_memory_format_is_kept():
    backbone = tiny(avg_down=True).eval()
    expected = backbone(image())
    backbone.to(memory_format=torch.channels_last)
    outputs = backbone(image().to(memory_format=torch.channels_last))
    for out, reference in zip(outputs, expected, strict=True):
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kwargs', [dict(with_cp=True), dict(groups=2, base_width=4)])
def test_copies_and_pickles_give_the_same_maps(kwargs):
    backbone = tiny(**kwargs).eval()
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert twin.levels == backbone.levels
        for a, b in zip(twin(image()), backbone(image()), strict=True):
            assert torch.equal(a, b)


def test_it_is_built_by_name_and_knows_its_preprocessing():
    cfg = dict(type='mmdet_backbones.ResNet', depth=50, out_strides=(8, 16, 32))
    with torch.device('meta'):
        backbone = MMENGINE_MODELS.build(cfg)
    assert type(backbone) is ResNet
    assert backbone.preprocess == IMAGENET
    assert backbone.variants is VARIANTS
    assert backbone.out_channels == (512, 1024, 2048)
