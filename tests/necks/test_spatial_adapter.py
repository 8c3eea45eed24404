"""The spatial adapter: sizes, alignment, mistakes, and the image that it gets."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_backbones.adapters.timm.backbone import TIMMBackbone
from mmdet_backbones.necks.spatial_adapter import SpatialAdapter


def map_sizes(size, strides):
    return [tuple(-(-side // stride) for side in size) for stride in strides]


def inputs_for(size, in_stride=16, channels=(24,), batch=1):
    generator = torch.Generator().manual_seed(0)
    (grid,) = map_sizes(size, [in_stride])
    shapes = [(3, *size), *((c, *grid) for c in channels)]
    return [torch.rand(batch, *shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize('strides', [(4, 8, 16, 32), (8, 16, 32), (16,)])
@pytest.mark.parametrize('in_stride', [8, 14, 16, 32])
def test_maps_have_the_size_of_the_image_over_the_stride(in_stride, strides):
    neck = SpatialAdapter((3, 24), 16, len(strides) + 1, strides, in_stride, width=8)
    assert neck.out_strides == (*strides, 2 * strides[-1])
    for size in ((64, 96), (97, 131), (33, 1), (15, 17)):
        outputs = neck(inputs_for(size, in_stride, batch=2))
        assert isinstance(outputs, tuple)
        expected = map_sizes(size, neck.out_strides)
        assert [tuple(x.shape) for x in outputs] == [(2, 16, *s) for s in expected]


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
@pytest.mark.parametrize('in_stride', [14, 16])
def test_a_map_is_resampled_pixel_on_pixel(in_stride, stride):
    """What grows with the place in the image has the value of that place at all
    strides, although the maps reach beyond the image by different lengths."""
    size = (221, 300)
    neck = SpatialAdapter((3, 2), 16, 4, in_stride=in_stride, width=8)

    def places(step):
        rows, columns = map_sizes(size, [step])[0]
        y = (torch.arange(rows) + 0.5)[:, None].expand(rows, columns)
        x = (torch.arange(columns) + 0.5)[None].expand(rows, columns)
        return step * torch.stack([y, x])[None]

    expected = places(stride)
    found = neck._resampled(places(in_stride), stride, expected)
    assert found.shape == expected.shape
    # At the border there is nothing to go on with.
    inside = ((expected > in_stride) & (expected < 200)).all(1, keepdim=True)
    assert inside.sum() > 20
    inside = inside.expand_as(found)
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-2)


def test_every_parameter_gets_a_gradient():
    for strides in ((4, 8, 16, 32), (8, 16)):
        neck = SpatialAdapter((3, 24), 16, len(strides), strides, width=8)
        outputs = neck(inputs_for((64, 96)))
        sum((x * torch.rand_like(x)).sum() for x in outputs).backward()
        idle = [n for n, p in neck.named_parameters() if not p.grad.abs().sum() > 0]
        assert idle == []


def test_each_map_of_several_goes_to_its_stride():
    neck = SpatialAdapter((3, 24, 16, 8), 16, 3, (8, 16, 32), width=8)
    inputs = inputs_for((64, 96), channels=(24, 16, 8))
    plain = neck(inputs)
    for number in range(3):
        changed = [*inputs]
        changed[number + 1] = changed[number + 1] + torch.rand(1)
        outputs = neck(changed)
        same = [torch.equal(a, b) for a, b in zip(plain, outputs, strict=True)]
        assert same == [other != number for other in range(3)]


def test_normalisation_can_be_chosen():
    neck = SpatialAdapter((3, 24), 16, norm_cfg=dict(type='BN'))
    assert not any(isinstance(m, nn.LayerNorm) for m in neck.modules())
    # The stem, four more layers of the branch, two for each stride.
    assert sum(isinstance(m, nn.BatchNorm2d) for m in neck.modules()) == 1 + 4 + 2 * 4


def test_a_backbone_hands_on_the_image():
    plain = TIMMBackbone('test_vit', out_strides=(16,)).eval()
    net = TIMMBackbone('test_vit', out_strides=(16,), out_image=True).eval()
    net.load_state_dict(plain.state_dict())
    neck = MODELS.build(
        dict(type='mmdet_backbones.SpatialAdapter', in_channels=net.out_channels)
    )
    image = torch.rand(1, 3, 97, 131)
    with torch.no_grad():
        outputs, (expected,) = net(image), plain(image)
        assert outputs[0] is image
        torch.testing.assert_close(outputs[1], expected)
        for level, output in zip(net.levels, outputs, strict=True):
            assert level.fits(output, image.shape[2:])
        sizes = [tuple(x.shape[2:]) for x in neck(outputs)]
    assert sizes == map_sizes((97, 131), neck.out_strides)
    with pytest.raises(ValueError, match=r'write backbone=dict\(out_image=True\)'):
        neck([expected])


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (torch.rand(1, 3, 4, 4), 'a bare tensor'),
        (inputs_for((64, 64), channels=(32,)), r'neck=dict\(in_channels=\[3, 32\]\)'),
        (inputs_for((64, 64), channels=(24, 24)), r'gives \[3, 24, 24\]'),
    ],
)
def test_other_inputs_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        SpatialAdapter((3, 24))(inputs)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError, match=r'write in_channels=\[3, 384\]') as error:
        SpatialAdapter(384, out_channels=0, num_outs=1, strides=(4, 16), width=-1)
    for words in ('out_channels must', 'strides must', 'num_outs must', 'width must'):
        assert words in str(error.value)
    for strides in ((), (2, 4), (8, 4), (32, 64)):
        with pytest.raises(ValueError, match='neighbours among'):
            SpatialAdapter((3, 384), strides=strides)
