"""Res2Net reproduces the nets of timm, mmpretrain and mmdet on converted weights."""

import pytest
import torch
from parity import TOLERANCE, convert, largest_difference, randomise

from mmdet_backbones.backbones.residual.res2net import VARIANTS, Res2Net
from mmdet_backbones.weights import load_pretrained

TIMM = {
    'res2net50_26w_4s': 'res2net50_26w_4s',
    'res2net50d': 'res2net50_v1b',
    'res2net50_26w_6s': 'res2net50_26w_6s',
    'res2net50_26w_8s': 'res2net50_26w_8s',
    'res2net50_48w_2s': 'res2net50_48w_2s',
    'res2net50_14w_8s': 'res2net50_14w_8s',
    'res2net101_26w_4s': 'res2net101_26w_4s',
    'res2net101d': 'res2net101_v1b',
    'res2next50': 'res2next50',
}
ALWAYS = ('res2net50_26w_4s', 'res2net50d')
TIMM_CASES = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)
    for name in TIMM
]
PLAIN = dict(deep_stem=False, avg_down=False)
MMPRETRAIN_CASES = [
    pytest.param(dict(depth=50), dict(depth=50, deep_stem=True, avg_down=True)),
    pytest.param(
        dict(depth=50, base_width=14, scales=8, **PLAIN),
        VARIANTS['res2net50_14w_8s'],
        marks=pytest.mark.slow,
    ),
    pytest.param(dict(depth=101), VARIANTS['res2net101_v1b'], marks=pytest.mark.slow),
]


def ours(**kwargs) -> Res2Net:
    return Res2Net(norm_eval=False, **kwargs)


@pytest.mark.parametrize('name', TIMM_CASES)
def test_timm(name, tmp_path):
    timm = pytest.importorskip('timm')
    host = randomise(timm.create_model(name))
    backbone = convert(host, ours(**VARIANTS[TIMM[name]]), tmp_path / 'timm.pth')

    def features(x):
        return host.forward_intermediates(
            x, indices=[1, 2, 3, 4], intermediates_only=True
        )

    assert largest_difference(host, backbone, features) < TOLERANCE


@pytest.mark.parametrize(('theirs', 'arguments'), MMPRETRAIN_CASES)
def test_mmpretrain(theirs, arguments, tmp_path):
    res2net = pytest.importorskip('mmpretrain.models.backbones.res2net')
    host = randomise(res2net.Res2Net(out_indices=(0, 1, 2, 3), **theirs))
    backbone = convert(host, ours(**arguments), tmp_path / 'mmpretrain.pth')
    assert largest_difference(host, backbone) < TOLERANCE


@pytest.mark.parametrize(
    'depth',
    [50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152))],
)
def test_mmdet(depth, tmp_path):
    from mmdet.models.backbones import Res2Net as Host

    host = randomise(Host(depth=depth, norm_eval=False))
    backbone = ours(**VARIANTS[f'res2net{depth}_v1d'], pool_at_stride_1=False)
    convert(host, backbone, tmp_path / 'mmdet.pth')
    assert largest_difference(host, backbone) < TOLERANCE
    assert set(backbone.state_dict()) == set(host.state_dict())


def test_detector_checkpoint_of_mmdet(tmp_path):
    """A detector trained with mmdet's class keeps its backbone, by mmengine too."""
    from mmdet.models.backbones import Res2Net as Host

    shape = dict(depth=50, base_channels=16, base_width=8)
    host = randomise(Host(norm_eval=False, **shape))
    state_dict = {f'backbone.{k}': v for k, v in host.state_dict().items()}
    torch.save({'state_dict': state_dict, 'meta': {}}, tmp_path / 'detector.pth')
    arguments = dict(shape, deep_stem=True, avg_down=True, pool_at_stride_1=False)
    backbone = ours(**arguments)
    load_pretrained(backbone, str(tmp_path / 'detector.pth'), min_coverage=1.0)
    assert largest_difference(host, backbone) < TOLERANCE
    detector = torch.nn.ModuleDict({'backbone': Res2Net(**arguments)})
    assert detector.load_state_dict(state_dict).missing_keys == []
