"""Parts of a detector in half precision and as CUDA graphs, captured by a stand-in."""

import copy
import pickle

import pytest
import torch
from small_detectors import build, small_config
from torch import nn
from torch.utils._pytree import tree_leaves

from mmdet_backbones import fuse_for_inference
from mmdet_backbones.inference import parts
from mmdet_backbones.registry import MODELS

SIZES = [(64, 96), (96, 64), (64, 64), (96, 96), (64, 128)]


@pytest.fixture
def captured(monkeypatch):
    """Capture on the CPU: what was run is noted, and a replay runs it again."""
    runs = []

    def capture(run):
        outputs = run()
        runs.append(outputs)

        def replay():
            for held, new in zip(tree_leaves(outputs), tree_leaves(run()), strict=True):
                held.copy_(new)

        return outputs, replay

    monkeypatch.setattr(parts, '_DEVICE', 'cpu')
    monkeypatch.setattr(parts, 'capture', capture)
    return runs


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(parts, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def detector(tmp_path):
    # mmdet's own nets return None from eval().
    net = build(small_config(tmp_path))
    net.eval()
    return net


def maps(net, images):
    with torch.inference_mode():
        return tree_leaves(net(images, mode='tensor'))


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_graphs_of_few_sizes(detector, captured, told):
    fast = fuse_for_inference(detector, compile='cuda-graph')
    for size in SIZES:
        images = torch.randn(3, 2, 3, *size).unbind()
        kept = [maps(fast, batch) for batch in images]
        # Each is compared after the others ran.
        for batch, found in zip(images, kept, strict=True):
            assert_equal(found, maps(detector, batch))
    # Backbone, neck and head, each for as many sizes as are kept.
    assert len(captured) == 3 * (len(SIZES) - 1)
    assert len(told) == 3
    assert told[0].startswith('backbone has CUDA graphs for 4 sizes of its inputs')
    assert '(2, 3, 64, 128)' in told[0]
    images = torch.randn(2, 3, *SIZES[0])
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        for layer in other.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
        assert maps(other, images)[0].std() < maps(fast, images)[0].std()
        assert_equal(maps(fast, images), maps(detector, images))


def test_weights_at_another_address_are_captured_anew(captured):
    net = MODELS.build(dict(type='ResNet', depth=18, base_channels=8))
    fast = fuse_for_inference(net, compile='cuda-graph')
    images = torch.randn(1, 3, 64, 64)
    for count in (1, 2):
        for _ in range(3):
            with torch.no_grad():
                found = fast(images)
        assert len(captured) == count
        fast.double().float()
    assert_equal(found, net.eval()(images))


def test_what_cannot_be_captured_runs_on(captured, told, monkeypatch):
    def refuse(run):
        raise RuntimeError('called a synchronizing CUDA operation')

    monkeypatch.setattr(parts, 'capture', refuse)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    fast = fuse_for_inference(net, compile='cuda-graph')
    images = torch.randn(1, 3, 16, 16)
    for _ in range(4):
        assert_equal([fast(images)], [net(images)])
    assert len(told) == 1
    assert 'called a synchronizing CUDA operation' in told[0]


def test_all_that_is_wrong_is_told_at_once():
    net = nn.Conv2d(3, 8, 3)
    with pytest.raises(ValueError, match=r'module\.cuda\(\)') as error:
        fuse_for_inference(net, compile='cuda-graph', dtype=torch.int8)
    assert 'got torch.int8' in str(error.value)
    with pytest.raises(ValueError, match="'reduce-overhead'"):
        fuse_for_inference(net, compile='fast')


def test_half_precision(detector):
    fast = fuse_for_inference(detector, dtype=torch.bfloat16)
    kinds = {type(m) for m in fast.modules() if hasattr(m, 'weight')
             and m.weight.dtype == torch.float32}  # fmt: skip
    assert nn.Conv2d not in kinds
    images = torch.randn(2, 3, 96, 128)
    found, expected = maps(fast, images), maps(detector, images)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 0.05 * max(1, float(other.abs().max()))
    with torch.no_grad():
        assert fast.neck(fast.backbone(images))[0].dtype == torch.bfloat16
    copied = pickle.loads(pickle.dumps(fast))
    assert_equal(maps(copied, images), found)


def test_maps_are_wide_where_regions_are_cut_from_them(monkeypatch):
    class TwoStages(nn.Module):
        def __init__(self):
            super().__init__()
            self.data_preprocessor = nn.Identity()
            self.backbone, self.neck = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.rpn_head = nn.Conv2d(8, 4, 1)
            self.roi_head = nn.Module()
            self.roi_head.bbox_head = nn.ModuleList(nn.Linear(8, 2) for _ in range(2))

    net = TwoStages()
    parts.make_fast(net, False, torch.bfloat16)
    maps = net.backbone(torch.randn(1, 3, 16, 16))
    assert maps.dtype == torch.bfloat16
    assert net.neck(maps).dtype == torch.float32
    assert net.roi_head.bbox_head[1](torch.randn(2, 8)).dtype == torch.float32
    assert net.roi_head.bbox_head[1].weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_compiled_with_half_precision():
    net = MODELS.build(dict(type='ResNet', depth=18, base_channels=8))
    images = torch.randn(1, 3, 64, 64)
    fast = fuse_for_inference(net, 'reduce-overhead', dtype=torch.bfloat16)
    with torch.inference_mode():
        kept = [fast(images * scale) for scale in (1, 2)]
        for scale, found in zip((1, 2), kept, strict=True):
            for one, other in zip(found, net.eval()(images * scale), strict=True):
                gap = (one.float() - other).abs().max()
                assert gap < 0.05 * max(1, float(other.abs().max()))
    pickle.loads(pickle.dumps(fast))
