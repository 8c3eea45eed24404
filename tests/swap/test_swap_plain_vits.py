"""Plain ViTs put into detectors: pyramids, windows, and what is refused."""

from pathlib import Path

import pytest
import torch
from cures import applied
from mmengine.config import Config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.check.trial import random_detector, synthetic_batch, try_config
from mmdet_backbones.swap.swapping import SwapOptions, save, swap_backbone

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
C4 = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
VIT = 'timm/vit_tiny_patch16_224'
WINDOWS = ('window_size=2', 'global_blocks=[5, 11]')


@pytest.fixture
def swapped(tmp_path):
    """Swap, write and read the config."""

    def make(base: str, name: str, **order) -> Config:
        out = tmp_path / 'swapped.py'
        save(SwapOptions(base, name, out, force=True, no_weights=True, **order))
        return Config.fromfile(out)

    return make


def test_an_adapter_gets_the_image_and_keeps_the_strides_of_the_base(swapped):
    config = swapped(FASTER, VIT, neck='adapter', backbone_options=WINDOWS)
    backbone, neck = config.model.backbone, config.model.neck
    assert (backbone.out_image, backbone.window_size) == (True, 2)
    assert backbone.global_blocks == [5, 11]
    assert neck.type == 'mmdet_backbones.SpatialAdapter'
    assert (neck.in_channels, neck.strides) == ([3, 192], (4, 8, 16, 32))
    assert errors_of(check_config(config)) == []
    head = ' '.join(Path(config.filename).read_text().replace('\n# ', ' ').split())
    assert 'Neck (--neck adapter): the one map of stride 16' in head
    assert 'window_size=2, global_blocks=[5, 11] (--backbone-option)' in head
    trial = try_config(Path(config.filename), (128, 128))
    assert trial.loss > 0
    assert trial.idle == ()


def test_the_pyramid_by_name_is_the_one_by_default(swapped):
    plain, named = swapped(FASTER, VIT), swapped(FASTER, VIT, neck='sfp')
    assert plain.model == named.model
    assert named.model.neck.type == 'mmdet_backbones.SimpleFeaturePyramid'
    assert 'out_image' not in named.model.backbone


def test_patches_of_14_pixels_get_whole_strides_from_an_adapter(swapped):
    config = swapped(YOLOX, 'timm/vit_small_patch14_dinov2', neck='adapter')
    adapter, pafpn = config.model.neck
    assert (adapter.in_stride, adapter.strides) == (14, (8, 16, 32))
    assert pafpn.in_channels == [256] * 3
    assert config.model.data_preprocessor.pad_size_divisor == 32
    assert errors_of(check_config(config)) == []


def told(base: str, name: str, **order) -> str:
    with pytest.raises(ValueError, match=r'\w') as caught:
        swap_backbone(SwapOptions(base, name, Path('nowhere.py'), **order))
    return str(caught.value)


@pytest.mark.parametrize(
    ('base', 'name', 'order', 'message'),
    [
        (FASTER, 'timm/resnet18', dict(neck='adapter'), 'one of its own: '),
        (C4, VIT, dict(neck='sfp'), 'reads one map'),
        (FASTER, VIT, dict(neck='sfp', strides=(16,)), 'leave one out'),
        (FASTER, VIT, dict(neck='fpn'), "sfp or adapter, got 'fpn'"),
        (FASTER, 'torchvision/vit_b_16', dict(neck='adapter'), 'write --neck sfp'),
        (FASTER, VIT, dict(backbone_options=('window=7',)), 'mean window_size?'),
        (FASTER, VIT, dict(backbone_options=('window_size',)), 'takes NAME=VALUE'),
        (FASTER, VIT, dict(backbone_options=('out_strides=4',)), 'write --strides'),
        (FASTER, VIT, dict(backbone_options=('window_size=0',)), 'window_size=14'),
        (FASTER, 'timm/resnet18', dict(backbone_options=('window_size=7',)),
         'no plain ViT'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_what_to_write(base, name, order, message):
    assert message in told(base, name, **order)


def test_mistakes_in_options_are_told_together():
    options = ('window_size', 'init_cfg=None', 'with_cp=True', 'with_cp=False')
    message = told(FASTER, VIT, backbone_options=options)
    for words in (
        'takes NAME=VALUE',
        'write --checkpoint',
        'with_cp stands there twice',
    ):
        assert words in message


@pytest.mark.parametrize(
    ('neck', 'change', 'expected'),
    [
        ('adapter', dict(out_image=False), 'model.backbone.out_image = True'),
        ('sfp', dict(out_image=True), 'model.backbone.out_image = False'),
    ],
)
def test_the_check_sees_an_image_that_lacks_or_is_too_much(
    neck, change, expected, swapped
):
    config = swapped(FASTER, VIT, neck=neck)
    config.model.backbone.update(change)
    (finding,) = errors_of(check_config(config))
    assert finding.cure == (expected,)
    after = check_config(applied(config, finding.cure))
    assert errors_of(after) == [], describe(after)


def test_the_check_replaces_an_adapter_that_cannot_have_the_image(swapped):
    config = swapped(FASTER, VIT, neck='adapter')
    config.model.backbone = dict(
        type='mmdet_backbones.TorchvisionBackbone', model_name='vit_b_16',
        out_strides=(16,),
    )  # fmt: skip
    finding = next(f for f in errors_of(check_config(config)) if f.rule == 'levels')
    assert 'cannot hand it on' in finding.problem
    assert 'SimpleFeaturePyramid' in finding.cure[0]
    after = check_config(applied(config, finding.cure))
    assert 'levels' not in [f.rule for f in errors_of(after)], describe(after)


@pytest.mark.slow
@pytest.mark.parametrize(('base', 'neck'), [(FASTER, 'sfp'), (DINO, 'adapter')])
def test_dinov3_in_windows_trains_and_predicts(base, neck, swapped):
    options = ('window_size=4',)
    name = 'timm/vit_small_patch16_dinov3'
    config = swapped(base, name, neck=neck, backbone_options=options)
    assert errors_of(check_config(config)) == []
    if base == DINO:  # of a size that tests can wait for
        config.model.num_queries = 50
        config.model.encoder.num_layers = config.model.decoder.num_layers = 1
    torch.manual_seed(0)
    model = random_detector(config.model).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(2):
        batch = synthetic_batch(config.model, (128, 160), [3, 1])
        batch = model.data_preprocessor(batch, True)
        total, _ = model.parse_losses(model(**batch, mode='loss'))
        assert total.isfinite()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        idle = [n for n, g in gradients.items() if g is None or not g.isfinite().all()]
        assert idle == []
    batch = synthetic_batch(config.model, (128, 160), [3, 1])
    batch = model.eval().data_preprocessor(batch, False)
    with torch.no_grad():
        samples = model(**batch, mode='predict')
    assert len(samples) == 2
    assert all(sample.pred_instances.bboxes.isfinite().all() for sample in samples)
