"""The feature pyramid that fuses by sum or by average."""

import pytest
import torch
from mmdet.models.necks import FPN as MMDET_FPN
from mmdet.registry import MODELS
from torch.nn import functional

from mmdet_backbones.necks.fpn import FPN

CHANNELS = [8, 16, 32, 64]
OPTIONS = [
    dict(num_outs=5),
    dict(num_outs=4, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    dict(num_outs=5, start_level=1, add_extra_convs='on_input'),
    dict(num_outs=6, add_extra_convs='on_lateral', relu_before_extra_convs=True),
    dict(num_outs=5, start_level=1, add_extra_convs='on_output'),
    dict(num_outs=5, add_extra_convs=True, norm_cfg=dict(type='BN')),
    dict(num_outs=2, start_level=1, end_level=2),
    dict(num_outs=4, no_norm_on_lateral=True, norm_cfg=dict(type='BN')),
    dict(num_outs=4, upsample_cfg=dict(mode='bilinear', align_corners=False)),
]


def levels(batch=2):
    sizes = [(24, 39), (12, 20), (6, 10), (3, 5)]
    return tuple(
        torch.rand(batch, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)
    )


def build(**arguments):
    return MODELS.build(
        dict(type='mmdet_backbones.FPN', in_channels=CHANNELS, out_channels=12)
        | arguments
    )


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_sum_is_mmdets_class_to_the_last_bit(options):
    torch.manual_seed(1)
    theirs = MMDET_FPN(in_channels=CHANNELS, out_channels=12, **options)
    theirs.init_weights()
    torch.manual_seed(1)
    ours = build(**options)
    ours.init_weights()
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    x = levels()
    for mine, other in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, other)


def test_average_is_half_of_every_sum():
    neck = build(num_outs=4, fuse_type='avg')
    x = levels()
    inner = [conv(level) for conv, level in zip(neck.lateral_convs, x, strict=True)]
    # detectron2: the map from above is already an average itself.
    results = [inner[3]]
    for lateral in inner[2::-1]:
        above = functional.interpolate(
            results[0], size=lateral.shape[2:], mode='nearest'
        )
        results.insert(0, (lateral + above) / 2)
    expected = [c(r) for c, r in zip(neck.fpn_convs, results, strict=True)]
    for mine, other in zip(neck(x), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    summed = build(num_outs=4)
    summed.load_state_dict(neck.state_dict())
    assert not torch.equal(summed(x)[0], neck(x)[0])
    assert torch.equal(summed(x)[3], neck(x)[3])


def test_the_whole_neck_gets_gradients():
    neck = build(num_outs=5, start_level=1, add_extra_convs='on_input', fuse_type='avg')
    sum(x.square().mean() for x in neck(levels())).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_every_mistake_is_named_at_once():
    with pytest.raises(ValueError, match="fuse_type must be 'sum' or 'avg'") as error:
        FPN([8, 0], 0, num_outs=1, fuse_type='mean', add_extra_convs='on_inputs')
    message = str(error.value)
    for part in ('in_channels', 'out_channels', 'num_outs', 'on_inputs', "got 'mean'"):
        assert part in message


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_outs=4, start_level=4), 'start_level must be from 0 to 3, got 4'),
        (dict(num_outs=4, end_level=7), 'end_level must be -1 or from 0 to 3, got 7'),
        (dict(num_outs=3, end_level=1), 'num_outs must be 2'),
        (dict(num_outs=2), 'write num_outs=4 or start_level=2'),
    ],
)
def test_levels_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_another_backbone_is_named_with_the_line_to_write():
    neck = build(num_outs=4)
    wrong = (*levels()[:3], torch.rand(2, 7, 3, 5))
    with pytest.raises(ValueError, match=r'in_channels=\[8, 16, 32, 7\]'):
        neck(wrong)
    with pytest.raises(ValueError, match='a bare tensor'):
        neck(wrong[0])
