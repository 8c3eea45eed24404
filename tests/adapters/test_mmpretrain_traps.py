"""What users of mmpretrain's nets fall into: the host's behaviour, then ours."""

import mmdet.models  # noqa: F401
import mmpretrain.models.backbones as zoo
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_backbones.compat.multimodal import installed
from mmdet_backbones.errors import settings_of

IMAGE = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))

ANY = 'mmdet_backbones.MMPretrainBackbone'


def strides_of(maps):
    return [IMAGE.shape[-1] // map_.shape[-1] for map_ in maps]


def yolox_neck(in_channels):
    return MODELS.build(
        dict(type='YOLOXPAFPN', in_channels=in_channels, out_channels=32)
    ).eval()


def test_levels_of_shufflenet_by_stride_fit_the_neck_of_yolox():
    host = zoo.ShuffleNetV2(widen_factor=1.0, out_indices=(1, 2, 3))
    maps = host(IMAGE)
    assert strides_of(maps) == [16, 32, 32]
    with pytest.raises(RuntimeError, match='Expected size'):
        yolox_neck([232, 464, 1024])(maps)

    ours = MODELS.build(
        dict(type='mmdet_backbones.ShuffleNetV2', out_strides=(8, 16, 32))
    ).eval()
    assert ours.out_indices == (0, 1, 2)
    assert ours.out_channels == (116, 232, 464)
    outputs = yolox_neck(list(ours.out_channels))(ours(IMAGE))
    assert strides_of(outputs) == [8, 16, 32]


def test_strides_of_shufflenet_are_known_before_a_run():
    net = MODELS.build(
        dict(type='mmdet_backbones.ShuffleNetV2', out_indices=(1, 2, 3))
    ).eval()
    assert net.out_strides == (16, 32, 32)
    assert strides_of(net(IMAGE)) == [16, 32, 32]


def test_levels_of_swin_by_stride_mean_the_same_in_every_version():
    host = zoo.SwinTransformer('tiny', out_indices=(0, 1, 2), pad_small_map=True)
    assert [m.shape[1] for m in host(IMAGE)] == [96, 192, 384]
    assert strides_of(host(IMAGE)) == [4, 8, 16]

    ours = MODELS.build(
        dict(type='mmdet_backbones.SwinTransformer', out_strides=(8, 16, 32))
    ).eval()
    assert ours.out_indices == (1, 2, 3)
    assert ours.out_channels == (192, 384, 768)
    assert [m.shape[1] for m in ours(IMAGE)] == [192, 384, 768]


def test_statistics_of_a_frozen_stem_stay():
    host = zoo.ShuffleNetV2(widen_factor=0.5, frozen_stages=1)
    ours = MODELS.build(
        dict(type='mmdet_backbones.ShuffleNetV2', widen_factor=0.5, frozen_stages=1)
    )
    drift = {}
    for name, net in (('host', host), ('ours', ours)):
        net.train()
        mean = net.conv1.bn.running_mean
        before = mean.clone()
        net(IMAGE)
        drift[name] = (mean - before).abs().max().item()
    assert drift['host'] > 0
    assert drift['ours'] == 0


def test_maps_smaller_than_a_window_of_swin():
    host = zoo.SwinTransformer('tiny', out_indices=(3,))
    with pytest.raises(AssertionError):
        host(IMAGE)
    ours = MODELS.build(
        dict(type='mmdet_backbones.SwinTransformer', out_indices=(3,))
    ).eval()
    assert ours(IMAGE)[0].shape == (2, 768, 4, 4)


def test_norm_eval_defaults_to_that_of_mmpretrain():
    host = zoo.ShuffleNetV2(widen_factor=0.5)
    ours = MODELS.build(dict(type='mmdet_backbones.ShuffleNetV2', widen_factor=0.5))
    assert host.norm_eval is ours.norm_eval is False
    frozen = MODELS.build(
        dict(type='mmdet_backbones.ShuffleNetV2', widen_factor=0.5, norm_eval=True)
    ).train()
    assert not frozen.conv1.bn.training


@pytest.mark.parametrize(
    ('kind', 'arguments', 'counted', 'ours'),
    [
        ('EfficientNet', dict(arch='b0'), 2, 1),
        ('EfficientNetV2', dict(arch='b0'), 2, 1),
        *(
            pytest.param(kind, arguments, 1, 2, marks=pytest.mark.slow)
            for kind, arguments in (
                ('CSPDarkNet', dict(depth=53)),
                ('VAN', dict(arch='tiny')),
            )
        ),
    ],
)
def test_mmpretrains_classes_count_frozen_stages_in_three_ways(
    kind, arguments, counted, ours
):
    model = dict(type=kind, **arguments)
    misplaced = dict(type=ANY, model=dict(model, frozen_stages=counted))
    with pytest.raises(ValueError, match='cannot stand inside model') as error:
        MODELS.build(misplaced)
    settings = settings_of(error.value)
    assert settings == dict(model=model, frozen_stages=ours)
    assert f'frozen_stages={ours}' in str(error.value)
    net = MODELS.build(dict(type=ANY, **settings))
    levels = list(net.out_indices)
    theirs = getattr(zoo, kind)(**arguments, frozen_stages=counted, out_indices=levels)
    theirs.train()
    names = {n for n, p in theirs.named_parameters() if not p.requires_grad}
    assert names
    assert names == {n for n, p in net.named_parameters() if not p.requires_grad}


WITHOUT_US = """
from mmdet_backbones.compat.hooks import AFTER_IMPORT
del AFTER_IMPORT['mmpretrain.utils.dependency']
import mmpretrain.models
"""
WITH_US = """
from mmdet.registry import MODELS
net = MODELS.build(dict(type='mmdet_backbones.ShuffleNetV2', out_indices=(0, 1, 2)))
print(net.out_channels)
import mmpretrain.models
from mmdet_backbones.adapters.mmpretrain.nets import _explain
print(_explain(TypeError('NoneType takes no arguments')))
"""


@pytest.mark.slow
def test_a_newer_transformers_does_not_take_the_nets_along(run_python, tmp_path):
    if not installed('mmpretrain'):
        pytest.skip('onedl-mmpretrain knows this transformers')
    metadata = tmp_path / 'transformers-4.56.2.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: transformers\nVersion: 4.56.2\n')
    (tmp_path / 'transformers').mkdir()
    # Without the names that mmpretrain looks for, as in the newer versions.
    (tmp_path / 'transformers' / '__init__.py').touch()

    host = run_python('-c', WITHOUT_US, PYTHONPATH=str(tmp_path))
    assert host.returncode == 1
    assert "from 'transformers'" in host.stderr.splitlines()[-1]

    ours = run_python('-c', WITH_US, PYTHONPATH=str(tmp_path))
    assert ours.returncode == 0, ours.stderr
    channels, cause, *cure = ours.stdout.splitlines()
    assert channels == '(116, 232, 464)'
    assert cause.startswith('Importing mmpretrain failed (TypeError: NoneType takes no')
    assert '(found 4.56.2)' in cause
    assert '  pip install "transformers<4.53"' in cure
