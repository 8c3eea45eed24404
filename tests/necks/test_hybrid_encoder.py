"""The hybrid encoder: transformers' maps, sizes, gradients, mistakes, and DINO."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from small_rtdetr import NECK, WIDTH, randomise, theirs
from torch import Tensor, nn

from mmdet_backbones.detectors.published import RTDETR_OF_TRANSFORMERS


def build(**changes) -> nn.Module:
    return MODELS.build({**NECK, **changes})


def levels(*sizes: tuple[int, int]) -> list[Tensor]:
    channels = NECK['in_channels']
    return [torch.randn(2, c, *s) for c, s in zip(channels, sizes, strict=True)]


def filled(neck: nn.Module, source: dict[str, Tensor]) -> nn.Module:
    """The neck with the weights of a detector of transformers."""
    own = {f'neck.{key}': value for key, value in neck.state_dict().items()}
    with torch.no_grad():
        for key, names in RTDETR_OF_TRANSFORMERS.names(own, source).items():
            parts = [source[name] for name in names]
            own[key].copy_(torch.cat(parts) if len(parts) > 1 else parts[0])
    return neck.eval()


@pytest.mark.parametrize(
    ('ours', 'changes'),
    [
        ({}, {}),
        (dict(expansion=0.5), dict(hidden_expansion=0.5)),
        (dict(num_layers=2), dict(encoder_layers=2)),
        (dict(num_layers=0), dict(encoder_layers=0)),
    ],
)
def test_maps_are_those_of_transformers(ours, changes):
    model = theirs(**changes).model
    weights = {f'model.{key}': value for key, value in model.state_dict().items()}
    neck = filled(build(**ours), weights)
    # Not square, so that rows and columns of positions cannot be mistaken.
    inputs = levels((12, 20), (6, 10), (3, 5))
    with torch.no_grad():
        projected = [
            project(x)
            for project, x in zip(model.encoder_input_proj, inputs, strict=True)
        ]
        expected = model.encoder(projected).last_hidden_state
        found = neck(inputs)
    assert len(found) == 3
    for ours, other in zip(found, expected, strict=True):
        assert other.std() > 0.1
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    'sizes', [((25, 19), (13, 10), (7, 5)), ((1, 4), (1, 2), (1, 1))]
)
def test_sizes_that_do_not_halve_stay_what_they_are(sizes):
    found = build().eval()(levels(*sizes))
    assert [tuple(x.shape[1:]) for x in found] == [(WIDTH, *size) for size in sizes]


def test_every_parameter_gets_a_gradient_and_each_output_sees_every_level():
    neck = randomise(build())
    inputs = [x.requires_grad_() for x in levels((8, 12), (4, 6), (2, 3))]
    outputs = neck(inputs)
    for output in outputs:
        seen = torch.autograd.grad(output.square().sum(), inputs, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in seen)
    sum(output.square().sum() for output in outputs).backward()
    assert [n for n, p in neck.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_all_mistakes_are_told_and_the_line_cures():
    with pytest.raises(ValueError, match='HybridEncoder: ') as told:
        build(in_channels=[64], num_blocks=0, dropout=1.5, num_layers=-1)
    for part in ('in_channels', 'num_blocks', 'dropout', 'num_layers'):
        assert part in str(told.value)
    with pytest.raises(ValueError, match='multiple of 4 and of num_heads=6') as told:
        build(out_channels=50, num_heads=6)
    channels = int(re.search(r'write out_channels=(\d+)', str(told.value))[1])
    assert build(out_channels=channels, num_heads=6).out_channels == channels == 60
    with pytest.raises(ValueError, match=r'write neck=dict\(in_channels=\[64, 128\]\)'):
        build()(levels((8, 8), (4, 4), (2, 2))[:2])


def test_mmdets_dino_trains_on_it():
    register_all_modules()
    path, _ = Config._get_cfg_path('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '')
    model = Config.fromfile(path).model
    model.num_queries, model.num_feature_levels = 30, 3
    for part, kind in (
        (model.encoder, 'self_attn_cfg'),
        (model.decoder, 'cross_attn_cfg'),
    ):
        part.num_layers = 1
        part.layer_cfg[kind].num_levels = 3
        part.layer_cfg.ffn_cfg.feedforward_channels = 32
    model.backbone = dict(
        type='mmdet_backbones.ResNet',
        depth=18,
        base_channels=8,
        out_strides=(8, 16, 32),
    )
    model.neck = {**NECK, 'in_channels': [16, 32, 64], 'out_channels': 256}
    detector = MODELS.build(model)
    # Some of mmdet's parameters are whatever lay in memory until then.
    detector.init_weights()
    batch = demo_mm_inputs(2, [[3, 96, 128]] * 2, num_classes=80)
    data = detector.data_preprocessor(batch, True)
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in detector.neck.parameters())
