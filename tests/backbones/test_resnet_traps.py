"""What users of mmdet's ResNet fall into: the host's behaviour, then ours."""

import copy

import pytest
import torch

from mmdet_backbones.backbones.residual.resnet import ResNet

SMALL = dict(depth=50, base_channels=16)


@pytest.fixture(scope='module')
def host():
    """mmdet's class."""
    from mmdet.models.backbones import ResNet as Host

    return Host


def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_a_wrong_level_is_explained(host):
    with pytest.raises(AssertionError) as raised:
        host(out_indices=(1, 2, 7), **SMALL)
    assert str(raised.value) == ''

    with pytest.raises(ValueError, match='no level of index 7') as raised:
        ResNet(out_indices=(1, 2, 7), **SMALL)
    assert '3 (512 channels, stride 32)' in str(raised.value)


def test_eval_and_train_return_the_module(host):
    assert host(**SMALL).train() is None

    ours = ResNet(**SMALL)
    assert ours.eval() is ours
    assert ours.train() is ours


def has_offsets(stage):
    return [hasattr(block.conv2, 'conv_offset') for block in stage]


def test_fallback_on_stride_is_honoured_and_the_dict_left_alone(host):
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    where = dict(stage_with_dcn=(False, True, False, True))
    changed = copy.deepcopy(dcn)
    theirs = host(dcn=changed, **where, **SMALL)
    assert changed != dcn
    # The first deformable block takes the request away from all that follow.
    assert has_offsets(theirs.layer2) == [False, True, True, True]
    assert has_offsets(theirs.layer4) == [True, True, True]

    given = copy.deepcopy(dcn)
    ours = ResNet(dcn=given, **where, **SMALL)
    assert given == dcn
    assert has_offsets(ours.layer2) == [False, True, True, True]
    assert has_offsets(ours.layer4) == [False, True, True]


def test_fallback_on_stride_is_honoured_with_groups(host):
    from mmdet.models.backbones import ResNeXt

    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    where = dict(stage_with_dcn=(False, False, False, True), groups=2, base_width=8)
    theirs = ResNeXt(dcn=copy.deepcopy(dcn), **where, **SMALL)
    assert has_offsets(theirs.layer4) == [True, True, True]

    assert has_offsets(ResNet(dcn=dcn, **where, **SMALL).layer4) == [False, True, True]


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint:UserWarning')
def test_a_checkpointed_step_counts_a_batch_once(host):
    def batches_counted(backbone):
        backbone.train()
        sum(out.mean() for out in backbone(image())).backward()
        return int(backbone.layer2[1].bn1.num_batches_tracked)

    assert batches_counted(host(with_cp=True, norm_eval=False, **SMALL)) == 2
    assert batches_counted(ResNet(with_cp=True, norm_eval=False, **SMALL)) == 1


def test_base_width_without_groups_takes_effect(host):
    from mmdet.models.backbones import ResNeXt

    theirs = ResNeXt(groups=1, base_width=32, **SMALL)
    assert theirs.layer1[0].conv2.out_channels == 16
    assert ResNet(base_width=32, **SMALL).layer1[0].conv2.out_channels == 32


def test_zero_init_residual_takes_effect_beside_init_cfg(host):
    init_cfg = dict(type='Constant', val=0.5, layer='Conv2d')
    theirs = host(init_cfg=init_cfg, zero_init_residual=True, **SMALL)
    theirs.init_weights()
    assert (theirs.layer1[0].bn3.weight == 1).all()

    ours = ResNet(init_cfg=init_cfg, zero_init_residual=True, **SMALL)
    ours.init_weights()
    assert (ours.layer1[0].bn3.weight == 0).all()
    assert (ours.layer1[0].conv3.weight == 0.5).all()
