"""What only a GPU can show: ``pytest -m cuda`` on a machine that has one."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small_detectors import build, small_config
from test_parts import assert_equal, maps

from mmdet_backbones import fuse_for_inference
from mmdet_backbones.compat.ext import attention
from mmdet_backbones.inference.memory_format import try_formats

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU'),
]
FAMILIES = {
    'one stage': 'retinanet/retinanet_r18_fpn_1x_coco.py',
    'without anchors': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'dynamic labels': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'two stages': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'transformer': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}
MIB = 2**20


def family(name: str) -> torch.nn.Module:
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from mmdet_backbones.check.trial import random_detector

    path, _ = Config._get_cfg_path(f'mmdet::{FAMILIES[name]}', '')
    with DefaultScope.overwrite_default_scope('mmdet'):
        return random_detector(Config.fromfile(path).model).cuda()


@pytest.mark.parametrize('name', FAMILIES)
def test_mixed_precision_learns(name):
    from mmengine.optim import build_optim_wrapper

    from mmdet_backbones.check.trial import synthetic_batch

    detector = family(name)
    detector.train()
    # Multi-scale training would show other images each time.
    detector.data_preprocessor.batch_augments = None
    data = synthetic_batch({}, (256, 256), [3, 3], 'cuda')
    optimizer = dict(type='AdamW', lr=2e-4, fused=True)
    wrapper = build_optim_wrapper(
        detector,
        dict(type='AmpOptimWrapper', optimizer=optimizer, loss_scale='dynamic',
             clip_grad=dict(max_norm=10)),
    )  # fmt: skip
    totals = []
    for _ in range(20):
        losses = detector.train_step(copy.deepcopy(data), wrapper)
        totals.append(float(losses['loss']))
    assert all(map(math.isfinite, totals))
    # Some heads draw samples: one step says little.
    assert sum(totals[-5:]) < sum(totals[:5])
    assert all(torch.isfinite(p).all() for p in detector.parameters())


@pytest.fixture
def detector(tmp_path):
    net = build(small_config(tmp_path))
    net.eval()
    return net.cuda()


@pytest.mark.parametrize('dtype', [None, torch.float16])
@pytest.mark.parametrize('mode', ['cuda-graph', 'reduce-overhead'])
def test_graphs_follow_what_is_in_the_batch(detector, mode, dtype):
    fast = fuse_for_inference(detector, mode, dtype=dtype)
    plain = fuse_for_inference(detector, dtype=dtype)
    for size in ((64, 96), (96, 64), (64, 96)):
        images = torch.randn(4, 2, 3, *size, device='cuda').unbind()
        kept = [maps(fast, batch) for batch in images]
        for batch, found in zip(images, kept, strict=True):
            expected = maps(plain, batch)
            if dtype is None and mode == 'cuda-graph':
                assert_equal(found, expected)
            else:
                for one, other in zip(found, expected, strict=True):
                    assert (one - other).abs().max() < 0.02 * (1 + other.abs().max())
    if mode == 'cuda-graph':
        assert [len(p.forward._graphs) for p in (fast.backbone, fast.neck)] == [2, 2]


def test_waiting_for_the_gpu_is_not_captured():
    class Waiting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return y * 2 if float(y.mean()) > 0 else y

    net = Waiting().cuda()
    fast = fuse_for_inference(net, 'cuda-graph', example=(torch.ones(1, 3, 8, 8),))
    for _ in range(4):
        images = torch.randn(1, 3, 8, 8, device='cuda')
        assert_equal([fast(images)], [net(images)])
    assert fast.forward._fails


LEVELS = ((25, 34), (13, 17), (7, 9), (1, 3))


def attention_inputs(dtype: torch.dtype, queries: int):
    generator = torch.Generator('cuda').manual_seed(0)
    shapes = torch.tensor(LEVELS, device='cuda')
    sizes = shapes.prod(1)

    def random(*size):
        made = torch.rand(*size, generator=generator, device='cuda')
        return made.to(dtype)

    value = random(2, int(sizes.sum()), 8, 32) - 0.5
    given = (value, shapes, sizes.cumsum(0) - sizes,
             random(2, queries, 8, 4, 4, 2) * 1.5 - 0.25,
             random(2, queries, 8, 4, 4))  # fmt: skip
    return given, random(2, queries, 256) - 0.5


def attend(given, grad):
    out = attention.ms_deform_attn_forward(*given, 64)
    grads = [torch.zeros_like(given[place]) for place in (0, 3, 4)]
    attention.ms_deform_attn_backward(*given, grad, *grads, 64)
    return out, *grads


@pytest.fixture
def plain(monkeypatch):
    """Run something without Triton's kernels."""

    def run(*args):
        with monkeypatch.context() as patch:
            patch.setattr(attention, '_kernels_for', lambda value: None)
            return attend(*args)

    return run


@pytest.mark.parametrize(
    ('dtype', 'bound'),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.float16, 1e-3),
        (torch.bfloat16, 8e-3),
    ],
)
def test_attention_equals_plain_torch(dtype, bound, plain):
    assert attention._kernels(torch.device('cuda', 0)) is not None
    given, grad = attention_inputs(dtype, 300)
    wide = [t.double() if t.is_floating_point() else t for t in given]
    found, expected = attend(given, grad), plain(wide, grad.double())
    # Where the last digit decides which pixel comes first, slopes are of another one.
    size = torch.tensor(LEVELS, device='cuda').flip(1)[:, None]
    pixels = wide[3] * size - 0.5
    edge = ((pixels - pixels.round()).abs() < 1e-3).any(-1, keepdim=True)
    for one, other in zip(found, expected, strict=True):
        gap = (one.double() - other).abs()
        if other.shape == pixels.shape:
            gap = gap.masked_fill(edge, 0)
        assert gap.max() <= bound * max(1, other.abs().max())


def test_attention_keeps_nothing_between_input_and_output(plain):
    given, grad = attention_inputs(torch.float32, 8000)
    used = []
    for run in (attend, plain):
        run(given, grad)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(given, grad)
        torch.cuda.synchronize()
        used.append(torch.cuda.max_memory_allocated() - before)
    # The result, and the gradients of the inputs before and after they are handed on.
    inputs = sum(given[place].nbytes for place in (0, 3, 4))
    assert used[0] < grad.nbytes + 2 * inputs + MIB
    assert used[0] < used[1] / 2


def test_formats_are_tried_in_mixed_precision(detector):
    detector.requires_grad_()
    for dtype, name in ((None, 'TF32'), (torch.float16, 'float16')):
        assert try_formats(detector.backbone, True, dtype).precision == name
