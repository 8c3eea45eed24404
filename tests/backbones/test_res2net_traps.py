"""What users of mmdet's Res2Net fall into: the host's behaviour, then ours."""

import copy

import pytest
import torch
from mmengine.registry import Registry

from mmdet_backbones.backbones.residual.res2net import Res2Net
from mmdet_backbones.registry import MODELS

SMALL = dict(depth=50, base_channels=16, base_width=8)
V1D = dict(deep_stem=True, avg_down=True)
CONTEXT = dict(type='ContextBlock', ratio=0.5)


@pytest.fixture(scope='module')
def host():
    """mmdet's class."""
    from mmdet.models.backbones import Res2Net as Host

    return Host


@pytest.fixture(scope='module')
def mmpretrain_host():
    """mmpretrain's class."""
    return pytest.importorskip('mmpretrain.models.backbones.res2net').Res2Net


def image(batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, 64, 96, generator=generator)


def test_stem_and_shortcut_arguments_take_effect(host):
    plain = host(deep_stem=False, avg_down=False, style='caffe', **SMALL)
    assert 'stem.0.weight' in plain.state_dict()
    assert 'layer1.0.downsample.1.weight' in plain.state_dict()

    ours = Res2Net(deep_stem=False, avg_down=False, **SMALL)
    assert 'conv1.weight' in ours.state_dict()
    assert ours.layer1[0].downsample[0].weight.dim() == 4
    with pytest.raises(TypeError, match='style'):
        Res2Net(style='caffe', **SMALL)


def test_zero_init_residual_takes_effect(host):
    theirs = host(zero_init_residual=True, **SMALL)
    theirs.init_weights()
    assert (theirs.layer1[0].bn3.weight == 1).all()

    ours = Res2Net(zero_init_residual=True, **SMALL)
    ours.init_weights()
    assert (ours.layer1[0].bn3.weight == 0).all()


def test_a_wrong_level_is_explained(host):
    with pytest.raises(AssertionError) as raised:
        host(out_indices=(1, 2, 7), **SMALL)
    assert str(raised.value) == ''

    with pytest.raises(ValueError, match='no level of index 7') as raised:
        Res2Net(out_indices=(1, 2, 7), **SMALL)
    assert '3 (512 channels, stride 32)' in str(raised.value)


def test_eval_and_train_return_the_module(host):
    assert host(**SMALL).eval() is None

    ours = Res2Net(**SMALL)
    assert ours.eval() is ours
    assert ours.train() is ours


def test_registering_clashes_with_nothing(host):
    from mmdet.registry import MODELS as MMDET_MODELS

    class Second(torch.nn.Module):
        """Somebody's own Res2Net."""

    with pytest.raises(KeyError, match='already registered'):
        MMDET_MODELS.register_module(name='Res2Net', module=Second)

    assert isinstance(MODELS, Registry)
    assert MODELS.scope == 'mmdet_backbones'
    assert MMDET_MODELS.get('Res2Net') is host
    assert MMDET_MODELS.get('mmdet_backbones.Res2Net') is Res2Net


def test_the_last_split_of_layer1_is_pooled(host):
    theirs = host(norm_eval=False, **SMALL)
    ours = Res2Net(norm_eval=False, **SMALL, **V1D)
    flagged = Res2Net(norm_eval=False, pool_at_stride_1=False, **SMALL, **V1D)
    for backbone in (ours, flagged):
        backbone.load_state_dict(theirs.state_dict())
    expected = theirs(image())[0]
    torch.testing.assert_close(flagged(image())[0], expected)
    assert not torch.allclose(ours(image())[0], expected, rtol=0.01, atol=0.01)
    assert not hasattr(theirs.layer1[0], 'pool')
    assert ours.layer1[0].pool is not None


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2'])
def test_plugins_fit_the_width_of_the_block(host, position):
    plugins = [dict(cfg=CONTEXT, position=position)]
    with pytest.raises(RuntimeError, match='channels'):
        host(plugins=plugins, **SMALL)(image())

    assert len(Res2Net(plugins=plugins, **SMALL)(image())) == 4


def test_fallback_on_stride_is_honoured_and_the_dict_left_alone(host):
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    where = dict(stage_with_dcn=(False, False, False, True))
    changed = copy.deepcopy(dcn)
    theirs = host(dcn=changed, **where, **SMALL)
    assert changed != dcn
    assert hasattr(theirs.layer4[0].convs[0], 'conv_offset')

    given = copy.deepcopy(dcn)
    ours = Res2Net(dcn=given, **where, **SMALL)
    assert given == dcn
    assert [block.deformable for block in ours.layer4] == [False, True, True]


def test_channels_last_reaches_the_branches(host):
    def format_of_branches(backbone):
        """Tell for each branch of a block whether it reads channels-last maps."""
        found = []

        def note(module, inputs):
            # The channels of a channels-last map lie side by side.
            found.append(inputs[0].stride(1) == 1)

        for conv in backbone.layer2[1].convs:
            conv.register_forward_pre_hook(note)
        backbone.eval()
        backbone.to(memory_format=torch.channels_last)
        backbone(image().to(memory_format=torch.channels_last))
        return found

    assert not any(format_of_branches(host(**SMALL)))
    assert all(format_of_branches(Res2Net(**SMALL)))


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint:UserWarning')
def test_a_checkpointed_step_counts_a_batch_once(host):
    def batches_counted(backbone):
        backbone.train()
        sum(out.mean() for out in backbone(image())).backward()
        return int(backbone.layer2[1].bn1.num_batches_tracked)

    assert batches_counted(host(with_cp=True, norm_eval=False, **SMALL)) == 2
    assert batches_counted(Res2Net(with_cp=True, norm_eval=False, **SMALL)) == 1


def test_drop_path_rate_takes_effect(mmpretrain_host):
    def is_random(backbone):
        backbone.train()
        return not torch.equal(backbone(image(8))[-1], backbone(image(8))[-1])

    torch.manual_seed(0)
    theirs = mmpretrain_host(drop_path_rate=0.9, **SMALL)
    assert not is_random(theirs)
    assert is_random(Res2Net(drop_path_rate=0.9, norm_eval=False, **SMALL))


def test_norm_eval_defaults_differ_and_ours_is_that_of_mmdet(host, mmpretrain_host):
    def fixed(backbone):
        backbone.train()
        return not backbone.layer1[0].bn1.training

    assert fixed(host(**SMALL))
    assert not fixed(mmpretrain_host(**SMALL))
    assert fixed(Res2Net(**SMALL))
