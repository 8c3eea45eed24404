"""Image sizes that timm's nets do not take: the message names those that they do."""

import re

import pytest
import torch

from mmdet_backbones.adapters.timm.backbone import TIMMBackbone
from mmdet_backbones.errors import ArgumentError

# One of each of timm's families whose nets hang on the size of the image.
FAMILIES = """
aimv2_large_patch14_224 beit_base_patch16_224 beitv2_base_patch16_224 botnet26t_256
cait_xxs24_224 coat_lite_tiny coat_tiny coatnet_0_224 convit_tiny crossvit_9_240
davit_tiny deepseek_vit_412m deit3_small_patch16_224 deit_tiny_distilled_patch16_224
eca_halonext26ts efficientformer_l1 efficientformerv2_s0 efficientvit_b0
efficientvit_m0 eva02_base_patch16_clip_224 eva02_tiny_patch14_224 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny gmixer_24_224 halonet26t hiera_small_abswin_256
hiera_tiny_224 hieradet_small lambda_resnet26t levit_128s levit_conv_128s
maxvit_nano_rw_256 maxvit_tiny_tf_224 maxxvit_rmlp_nano_rw_256 mixer_s32_224
mobilevit_s mvitv2_small_cls mvitv2_tiny naflexvit_base_patch16_gap nest_tiny
nextvit_small pit_ti_224 pvt_v2_b0 qwen3_vit_88m resmlp_12_224 resnet50_clip
samvit_base_patch16 sebotnet33ts_256 sequencer2d_s swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tiny_vit_5m_224
tnt_s_patch16_224 twins_pcpvt_small twins_svt_small visformer_tiny vit_base_mci_224
vit_base_r26_s32_224 vit_relpos_small_patch16_224 vit_small_patch14_dinov2
vit_small_patch16_dinov3 vit_srelpos_small_patch16_224 vit_tiny_patch16_224
vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
"""


def weightless(name, **arguments):
    with torch.device('meta'):
        return TIMMBackbone(name, **arguments)


def named_sizes(text):
    """Every size that a message says to write; the first one is that it was given."""
    _, *sizes = re.findall(r'img_size=\((\d+), (\d+)\)', text)
    return [(int(height), int(width)) for height, width in sizes]


@pytest.mark.parametrize(
    ('name', 'size', 'nearest'),
    [
        pytest.param(
            'maxvit_rmlp_pico_rw_256',
            (800, 1333),
            [(800, 1344), (800, 1312)],
            marks=pytest.mark.slow,
        ),
        ('mvitv2_tiny', (320, 416), [(416, 416), (320, 320)]),
        ('test_vit', (100, 160), [(112, 160), (96, 160)]),
    ],
)
def test_a_size_that_does_not_divide(name, size, nearest):
    with pytest.raises(ArgumentError, match='does not take img_size') as error:
        weightless(name, img_size=size)
    assert named_sizes(str(error.value)) == nearest
    written = weightless(name, **error.value.settings)
    assert len(written.levels) == len(weightless(name).levels)


@pytest.mark.slow
def test_a_level_that_is_lost_to_the_size():
    name = 'swin_tiny_patch4_window7_224'
    assert weightless(name, img_size=(96, 189)).out_strides == (8, 16, 32)
    with pytest.raises(ArgumentError, match='3 levels with img_size') as error:
        weightless(name, img_size=(96, 189), out_strides=(4, 8, 16, 32))
    assert error.value.settings == dict(img_size=(96, 192))
    weightless(name, out_strides=(4, 8, 16, 32), **error.value.settings)
    with pytest.raises(ValueError, match='there is no level of stride 2'):
        weightless(name, img_size=(96, 192), out_strides=(2,))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [((64, 96), 'img_size=(64, 96)'), ((64, 90), '(64, 96) or (64, 64)')],
)
def test_an_image_of_another_size_than_the_net(given, expected):
    net = TIMMBackbone('mixer_s32_224', out_strides=(32,))
    with pytest.raises(ValueError, match='only, got') as error:
        net(torch.rand(1, 3, *given))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        pytest.param(
            name,
            size,
            marks=pytest.mark.slow if (i + j) % 2 == 0 else pytest.mark.exhaustive,
        )
        for i, name in enumerate(FAMILIES.split())
        for j, size in enumerate([(800, 1333), (320, 416)])
    ],
)
def test_every_family_takes_a_size_or_names_others(name, size):
    try:
        assert weightless(name, img_size=size).levels
    except ArgumentError as error:
        text, settings = str(error), error.settings
    else:
        return
    plain = weightless(name)
    sizes = named_sizes(text)
    assert sizes or 'leave out img_size' in text
    for arguments in (settings, *(dict(img_size=size) for size in sizes)):
        assert len(weightless(name, **arguments).levels) == len(plain.levels)
    if 'takes images of any size' in text:
        assert plain._sizes.fixed is None
