"""Compare a backbone of ours with the net of another library on the same weights."""

import torch

from mmdet_backbones.weights import load_pretrained

TOLERANCE = 1e-5


def randomise(model):
    """Fill weights and statistics with values that keep every layer alive."""
    generator = torch.Generator().manual_seed(0)

    def noise(value):
        return torch.randn(value.shape, generator=generator)

    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue  # counters and tables of indices
        if name.endswith('running_mean'):
            value.copy_(0.1 * noise(value))
        elif name.endswith('running_var'):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.dim() == 1:
            value.copy_(0.2 * noise(value) + name.endswith('weight'))
        elif value.dim() > 1:
            value.copy_(noise(value) / value[0].numel() ** 0.5)
    return model


def convert(host, backbone, path):
    """Load the host's weights into ours through the checkpoint reader."""
    torch.save(host.state_dict(), path)
    report = load_pretrained(backbone, str(path), min_coverage=1.0)
    assert report.unexpected == report.missing == ()
    return backbone


def largest_difference(host, backbone, features=None):
    """Compare the maps of all levels, in eval and in train mode.

    Args:
        host: The other library's net.
        backbone: Ours.
        features: Maps an image to the host's maps; by default the host itself.

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
