"""Res2Net: shapes, levels, arguments and their mistakes, freezing."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_backbones.backbones.residual.res2net import VARIANTS, Res2Net
from mmdet_backbones.levels import IMAGENET

TINY = dict(stage_blocks=(1, 2, 1, 1), base_channels=16, base_width=8)
HEAD = 2_049_000
# Classification nets of 1000 classes; v1d-200 is published as 76.21 M only.
PARAMETERS = {
    'res2net50_48w_2s': 25_287_304,
    'res2net50_26w_4s': 25_699_120,
    'res2net50_14w_8s': 25_059_816,
    'res2net50_26w_6s': 37_051_448,
    'res2net50_26w_8s': 48_403_776,
    'res2net101_26w_4s': 45_206_688,
    'res2next50': 24_671_464,
    'res2net50_v1b': 25_718_352,
    'res2net101_v1b': 45_225_920,
    'res2net50_v1d': 25_718_352,
    'res2net101_v1d': 45_225_920,
}


def tiny(**kwargs) -> Res2Net:
    torch.manual_seed(0)
    return Res2Net(**{**TINY, 'norm_eval': False, **kwargs})


def image(channels=3, height=64, width=96, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


def backward(backbone, x):
    sum(out.square().mean() for out in backbone(x)).backward()


def count(backbone):
    return sum(parameter.numel() for parameter in backbone.parameters())


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    with torch.device('meta'):
        assert count(Res2Net(**VARIANTS[name])) + HEAD == PARAMETERS[name]


def test_parameter_count_of_v1d_200_is_the_published_one():
    with torch.device('meta'):
        millions = (count(Res2Net(**VARIANTS['res2net200_v1d'])) + HEAD) / 1e6
    assert millions == pytest.approx(76.21, abs=0.01)


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_can_be_built(name):
    with torch.device('meta'):
        backbone = Res2Net(**VARIANTS[name])
    assert backbone.out_channels == (256, 512, 1024, 2048)
    assert backbone.out_strides == (4, 8, 16, 32)


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(deep_stem=True, avg_down=True),
        dict(groups=2, scales=3),
        dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(strides=(2, 2, 1, 3), avg_down=True, pool_at_stride_1=False),
        dict(stage_blocks=(1, 1, 1, 1, 2)),
        dict(stage_blocks=(1, 1), stem_channels=24),
        dict(num_stages=3),
    ],
)
@pytest.mark.parametrize('size', [(64, 96), (97, 131)])
def test_levels_are_what_forward_gives(kwargs, size):
    backbone = tiny(**kwargs).eval()
    outputs = backbone(image(1, *size, batch=1).expand(-1, 3, -1, -1))
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(backbone.levels)
    for level, output in zip(backbone.levels, outputs, strict=True):
        rounded_up = [-(-side // level.stride) for side in size]
        assert list(output.shape) == [1, level.channels, *rounded_up]


def test_five_stages_have_five_levels():
    backbone = tiny(stage_blocks=(1, 1, 1, 1, 1))
    assert backbone.out_indices == (0, 1, 2, 3, 4)
    assert backbone.out_strides == (4, 8, 16, 32, 64)


def test_levels_by_index_and_by_stride_are_the_same_maps():
    by_index = tiny(out_indices=(1, 2)).eval()
    by_stride = tiny(out_strides=(8, 16)).eval()
    assert by_index.levels == by_stride.levels
    for a, b in zip(by_index(image()), by_stride(image()), strict=True):
        assert torch.equal(a, b)


def test_stages_above_the_deepest_level_are_not_built():
    backbone = tiny(out_indices=(0, 1))
    assert not [k for k in backbone.state_dict() if k.startswith(('layer3', 'layer4'))]
    whole = tiny().eval()
    backbone.load_state_dict(whole.state_dict(), strict=False)
    for a, b in zip(backbone.eval()(image()), whole(image()), strict=False):
        assert torch.equal(a, b)


@pytest.mark.parametrize('stages', [(0,), (1, 3), (0, 1, 2, 3)])
def test_every_parameter_gets_a_gradient(stages):
    backbone = tiny(out_indices=stages, deep_stem=True, avg_down=True)
    backward(backbone, image())
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ('kwargs', 'parts'),
    [
        (dict(depth=34), ['depth', '50, 101, 152, 200', '34']),
        (dict(depth=50, stage_blocks=(1, 1)), ['not both', 'depth=None']),
        (dict(stage_blocks=(1, 0)), ['stage_blocks', '(1, 0)', '(3, 4, 6, 3)']),
        (dict(num_stages=5), ['num_stages', '1 to 4', '5']),
        (dict(scales=1), ['scales', 'from 2', '1', 'ResNet', 'scales=4']),
        (dict(groups=0), ['groups', 'positive', '0']),
        (dict(in_channels=3.0), ['in_channels', '3.0']),
        (dict(drop_path_rate=1.0), ['drop_path_rate', 'below 1', '1.0']),
        (dict(strides=(1, 2, 2)), ['strides', '4', '(1, 2, 2)', '(1, 2, 2, 2)']),
        (dict(dilations=2), ['dilations', '(1, 1, 1, 1)']),
        (dict(norm_cfg='BN'), ['norm_cfg', "dict(type='BN')"]),
        (dict(conv_cfg={}), ['conv_cfg', "dict(type='Conv2d')"]),
        (dict(frozen_stages=5), ['frozen_stages', '-1', '4', '5']),
        (dict(out_indices=(1, 2, 7)), ['7', '3 (2048 channels, stride 32)']),
        (dict(out_indices=(2, 1)), ['shallow to deep']),
        (dict(out_strides=(8, 64)), ['stride 64', 'stride 32']),
        (dict(out_indices=(1,), out_strides=(8,)), ['not both']),
        (dict(dcn=dict(type='DCN')), ['stage_with_dcn', 'None', 'True']),
        (dict(stage_with_dcn=(False, True, True, True)), ["dcn=dict(type='DCNv2'"]),
        (
            dict(dcn=dict(type='Conv'), stage_with_dcn=(True, False, False, False)),
            ["'DCN' or 'DCNv2'", 'Conv'],
        ),
        (dict(plugins=dict(type='ContextBlock')), ['plugins', 'list of dicts']),
        (
            dict(plugins=[dict(cfg='ContextBlock', position='after_conv4', stage=1)]),
            ['plugins[0]', 'cfg=dict', 'after_conv3', 'does not take stage'],
        ),
    ],
)
def test_a_mistake_says_what_is_allowed_and_what_was_given(kwargs, parts):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        Res2Net(**kwargs)
    assert [part for part in parts if part not in str(raised.value)] == []


def test_all_mistakes_are_listed_at_once():
    wrong = dict(scales=0, groups=-1, strides=(1,), frozen_stages=9, norm_cfg=3)
    with pytest.raises(ValueError, match='cannot be built') as raised:
        Res2Net(**wrong)
    assert [name for name in wrong if name not in str(raised.value)] == []


@pytest.mark.parametrize('argument', ['style', 'pretrained', 'out_indexes'])
def test_an_unknown_argument_is_a_type_error(argument):
    with pytest.raises(TypeError, match=argument):
        Res2Net(**{argument: 'pytorch'})


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_are_frozen_from_the_start(frozen_stages, deep_stem):
    backbone = tiny(frozen_stages=frozen_stages, deep_stem=deep_stem)
    stem = ('conv1', 'bn1') if not deep_stem else ('stem',)
    frozen = stem * (frozen_stages >= 0)
    frozen += tuple(f'layer{i}' for i in range(1, frozen_stages + 1))
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen)
    before = {k: v.clone() for k, v in backbone.named_buffers()}
    assert backbone.train() is backbone
    backbone(image())
    for name, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[name]) is name.startswith(frozen), name


def test_frozen_stages_may_name_dropped_ones():
    backbone = tiny(out_indices=(0,), frozen_stages=3)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval_fixes_the_statistics_and_trains_the_weights(norm_eval):
    backbone = tiny(norm_eval=norm_eval).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert {norm.training for norm in norms} == {not norm_eval}
    assert all(norm.weight.requires_grad for norm in norms)


def test_norm_eval_is_on_by_default_as_in_mmdet():
    assert not Res2Net(**TINY).train().bn1.training


@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_input_channels(channels):
    backbone = tiny(in_channels=channels)
    assert len(backbone(image(channels))) == 4


def test_memory_format_is_kept():
    backbone = tiny(avg_down=True).eval()
    expected = backbone(image())
    assert all(out.is_contiguous() for out in expected)
    backbone.to(memory_format=torch.channels_last)
    outputs = backbone(image().to(memory_format=torch.channels_last))
    for out, reference in zip(outputs, expected, strict=True):
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        outputs = tiny(norm_eval=True).eval()(image())
    assert all(out.isfinite().all() for out in outputs)


def test_copies_and_pickles_give_the_same_maps():
    backbone = tiny(drop_path_rate=0.1, with_cp=True).eval()
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert twin.levels == backbone.levels
        for a, b in zip(twin(image()), backbone(image()), strict=True):
            assert torch.equal(a, b)


def test_state_dict_round_trip():
    backbone, other = tiny(), tiny()
    other.init_weights()
    other.load_state_dict(backbone.state_dict())
    for a, b in zip(other.eval()(image()), backbone.eval()(image()), strict=True):
        assert torch.equal(a, b)


def test_other_normalisations_and_convolutions():
    norm_cfg = dict(type='GN', num_groups=2, requires_grad=False)
    backbone = tiny(norm_cfg=norm_cfg, conv_cfg=dict(type='ConvWS'))
    assert norm_cfg == dict(type='GN', num_groups=2, requires_grad=False)
    assert isinstance(backbone.layer1[0].gn3, nn.GroupNorm)
    assert not backbone.gn1.weight.requires_grad
    assert type(backbone.layer2[1].convs[0]).__name__ == 'ConvWS2d'
    backward(backbone, image())


def test_drop_path_grows_linearly_and_acts_in_training_only():
    backbone = tiny(drop_path_rate=0.8)
    rates = [
        block.drop_path.drop_prob if block.drop_path is not None else 0.0
        for name in backbone.res_layers
        for block in getattr(backbone, name)
    ]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    x = image(batch=8)
    assert not torch.equal(backbone(x)[-1], backbone(x)[-1])
    backbone.eval()
    assert torch.equal(backbone(x)[-1], backbone(x)[-1])


def test_drop_path_leaves_the_shortcut_of_a_dropped_sample():
    block = tiny(stage_blocks=(3, 1), drop_path_rate=0.99).layer1[2]
    block.drop_path.drop_prob = 1 - 1e-7
    x = image(64, 8, 8).relu()
    assert torch.equal(block(x), x)


def test_it_is_built_by_name_and_knows_its_preprocessing():
    cfg = dict(type='mmdet_backbones.Res2Net', depth=50, out_strides=(8, 16, 32))
    with torch.device('meta'):
        backbone = MMENGINE_MODELS.build(cfg)
    assert type(backbone) is Res2Net
    assert backbone.preprocess == IMAGENET
    assert backbone.out_channels == (512, 1024, 2048)
