"""Res2Net reproduces the nets of timm, mmpretrain and mmdet on converted weights."""

import pytest
import torch

from mmdet_backbones.backbones.res2net import VARIANTS, Res2Net
from mmdet_backbones.weights import load_pretrained

TOLERANCE = 1e-5
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


def randomise(model):
    """Fill weights and statistics with values that keep every layer alive."""
    generator = torch.Generator().manual_seed(0)

    def noise(value):
        return torch.randn(value.shape, generator=generator)

    for name, value in model.state_dict().items():
        if name.endswith('running_mean'):
            value.copy_(0.1 * noise(value))
        elif name.endswith('running_var'):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.dim() == 1:
            value.copy_(0.2 * noise(value) + name.endswith('weight'))
        elif value.dim() > 1:
            value.copy_(noise(value) / value[0].numel() ** 0.5)
    return model


def convert(host, path, **kwargs):
    """Build ours and load the host's weights through the checkpoint reader."""
    torch.save(host.state_dict(), path)
    backbone = Res2Net(norm_eval=False, **kwargs)
    report = load_pretrained(backbone, str(path), min_coverage=1.0)
    assert report.unexpected == report.missing == ()
    return backbone


def largest_difference(host, backbone, features=None):
    """Compare the maps of all levels, in eval and in train mode.

    Returns:
        The largest difference, each relative to the largest activation of its map.
    """
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    worst = 0.0
    for training in (False, True):
        host.train(training)
        backbone.train(training)
        with torch.no_grad():
            pairs = zip((features or host)(x), backbone(x), strict=True)
        for theirs, ours in pairs:
            assert ours.shape == theirs.shape
            assert ours.isfinite().all()
            assert theirs.std() > 0.01
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


@pytest.mark.parametrize('name', TIMM_CASES)
def test_timm(name, tmp_path):
    timm = pytest.importorskip('timm')
    host = randomise(timm.create_model(name))
    backbone = convert(host, tmp_path / 'timm.pth', **VARIANTS[TIMM[name]])

    def features(x):
        return host.forward_intermediates(
            x, indices=[1, 2, 3, 4], intermediates_only=True
        )

    assert largest_difference(host, backbone, features) < TOLERANCE


@pytest.mark.parametrize(('theirs', 'ours'), MMPRETRAIN_CASES)
def test_mmpretrain(theirs, ours, tmp_path):
    res2net = pytest.importorskip('mmpretrain.models.backbones.res2net')
    host = randomise(res2net.Res2Net(out_indices=(0, 1, 2, 3), **theirs))
    backbone = convert(host, tmp_path / 'mmpretrain.pth', **ours)
    assert largest_difference(host, backbone) < TOLERANCE


@pytest.mark.parametrize(
    'depth',
    [50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152))],
)
def test_mmdet(depth, tmp_path):
    from mmdet.models.backbones import Res2Net as Host

    host = randomise(Host(depth=depth, norm_eval=False))
    ours = dict(VARIANTS[f'res2net{depth}_v1d'], pool_at_stride_1=False)
    backbone = convert(host, tmp_path / 'mmdet.pth', **ours)
    assert largest_difference(host, backbone) < TOLERANCE
    assert set(backbone.state_dict()) == set(host.state_dict())


def test_detector_checkpoint_of_mmdet(tmp_path):
    """A detector trained with mmdet's class keeps its backbone, by mmengine too."""
    from mmdet.models.backbones import Res2Net as Host

    shape = dict(depth=50, base_channels=16, base_width=8)
    host = randomise(Host(norm_eval=False, **shape))
    state_dict = {f'backbone.{k}': v for k, v in host.state_dict().items()}
    torch.save({'state_dict': state_dict, 'meta': {}}, tmp_path / 'detector.pth')
    ours = dict(shape, deep_stem=True, avg_down=True, pool_at_stride_1=False)
    backbone = Res2Net(norm_eval=False, **ours)
    load_pretrained(backbone, str(tmp_path / 'detector.pth'), min_coverage=1.0)
    assert largest_difference(host, backbone) < TOLERANCE
    detector = torch.nn.ModuleDict({'backbone': Res2Net(**ours)})
    assert detector.load_state_dict(state_dict).missing_keys == []
