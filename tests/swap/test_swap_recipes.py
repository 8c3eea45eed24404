"""How a swapped detector is trained: optimiser, rates, warm-up."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_backbones.engine.recipes import RECIPES, Traits, choose_recipe
from mmdet_backbones.swap.swapping import SwapOptions, save

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
DEFORMABLE = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'


@pytest.fixture
def swapped(tmp_path):
    def make(base: str, name: str, **order) -> Config:
        out = tmp_path / 'swapped.py'
        save(SwapOptions(base, name, out, force=True, **order))
        return Config.fromfile(out)

    return make


def family(**changes) -> str:
    usual = dict(
        model='net',
        weights=None,
        source='timm',
        strides=(4, 8, 16, 32),
        batch_norm=True,
        attention=False,
        token_norm=False,
        groups=10,
    )
    return choose_recipe(Traits(**{**usual, **changes})).family


def test_every_recipe_says_where_it_is_from():
    assert all(len(recipe.source) > 20 for recipe in RECIPES)
    assert len({recipe.family for recipe in RECIPES}) == len(RECIPES) >= 6


@pytest.mark.parametrize(
    ('traits', 'expected'),
    [
        (dict(strides=(16,), attention=True, token_norm=True), 'plain ViT'),
        (dict(attention=True, token_norm=True), 'hierarchical transformer'),
        (dict(batch_norm=False, token_norm=True), 'ConvNeXt and other'),
        (dict(model='tf_efficientnet_lite0'), 'EfficientNet'),
        (dict(weights='timm://resnet50'), 'modern recipe'),
        (dict(weights='timm://resnet50.tv_in1k'), 'convolutional net'),
        (dict(weights='timm://res2net50_26w_4s'), 'convolutional net'),
        (
            dict(source='torchvision', weights='torchvision://resnet50'),
            'convolutional net',
        ),
        (
            dict(source='torchvision', weights='torchvision://resnet50.IMAGENET1K_V2'),
            'modern recipe',
        ),
        (
            dict(source='mmpretrain', weights='https://x/resnet50_8xb256-rsb-a1.pth'),
            'modern recipe',
        ),
        (dict(), 'convolutional net'),
    ],
)
def test_a_family_by_net_and_weights(traits, expected):
    found = family(**traits)
    assert expected in found
    if expected == 'convolutional net':
        assert 'modern' not in found


def test_layer_decay_follows_the_depth():
    vit, convnext = RECIPES[0], RECIPES[1]
    # ViTDet: 0.7 for 12 blocks and 0.8 for 24.
    assert vit.decay_rate(13) == 0.7
    assert vit.decay_rate(25) == pytest.approx(0.8, abs=0.05)
    assert 0.7 < convnext.decay_rate(19) < 0.95
    assert RECIPES[-1].decay_rate(17) == 1.0


def test_a_classical_net_keeps_the_optimiser_of_the_base(swapped):
    config = swapped(FASTER, 'torchvision/resnet18')
    assert config.optim_wrapper.optimizer.type == 'SGD'
    assert config.optim_wrapper.optimizer.lr == 0.02
    assert 'constructor' not in config.optim_wrapper


def test_rates_follow_the_batch_and_so_does_eta_min(swapped):
    base = swapped(YOLOX, 'torchvision/resnet18')
    config = swapped(YOLOX, 'timm/convnext_atto')
    wrapper = config.optim_wrapper
    # Twice the rate for four times the batch.
    assert (wrapper.optimizer.type, wrapper.optimizer.lr) == ('AdamW', 2e-4)
    assert wrapper.constructor == 'mmdet_backbones.LayerDecayConstructor'
    assert 0.7 <= wrapper.paramwise_cfg.decay_rate < 0.95
    old, new = base.param_scheduler[1], config.param_scheduler[1]
    assert new.eta_min / wrapper.optimizer.lr == pytest.approx(
        old.eta_min / base.optim_wrapper.optimizer.lr, rel=0.05
    )
    assert config.param_scheduler[0].type == 'mmdet.QuadraticWarmupLR'


def test_a_longer_warm_up_for_a_transformer(swapped):
    config = swapped(FASTER, 'timm/vit_tiny_patch16_224')
    assert config.param_scheduler[0].end == 1000
    assert config.param_scheduler[1].milestones == [8, 11]
    assert config.optim_wrapper.clip_grad.max_norm == 1.0


def test_a_warm_up_in_one_step_is_replaced(swapped):
    base = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
    schedule = swapped(base, 'timm/convnext_atto').param_scheduler
    assert [step.type for step in schedule] == ['LinearLR', 'MultiStepLR']


def test_a_base_with_adamw_keeps_its_rate(swapped):
    config = swapped(DEFORMABLE, 'torchvision/resnet18')
    assert config.optim_wrapper.optimizer.lr == 2e-4
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.1
    rtmdet = swapped(RTMDET, 'torchvision/resnet18')
    assert rtmdet.optim_wrapper.optimizer.lr == 0.004
    paramwise = rtmdet.optim_wrapper.paramwise_cfg
    # A custom key of mmengine would have set the base's norm_decay_mult aside.
    assert (paramwise.backbone_lr_mult, paramwise.norm_decay_mult) == (0.1, 0)


def test_layer_decay_beside_the_keys_of_the_base(swapped):
    config = swapped(DEFORMABLE, 'mmpretrain/swin-tiny')
    paramwise = config.optim_wrapper.paramwise_cfg
    assert paramwise.backbone_lr_mult == 0.1
    assert set(paramwise.custom_keys) == {'sampling_offsets', 'reference_points'}
    assert config.optim_wrapper.optimizer.lr == 2e-4
    assert 'arXiv 2103.14030' in Path(config.filename).read_text().replace('\n# ', ' ')


def test_the_constructor_for_convnext_goes_with_convnext(swapped):
    base = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    wrapper = swapped(base, 'res2net50_26w_4s').optim_wrapper
    assert wrapper.constructor == 'mmdet_backbones.LayerDecayConstructor'
    assert 'num_layers' not in wrapper.paramwise_cfg
    assert wrapper.paramwise_cfg.decay_rate == 1.0
    assert wrapper.type == 'AmpOptimWrapper'


def test_a_rate_of_adam_follows_the_root_of_the_batch(swapped):
    """A proportional rate for 2 of 16 images trains next to nothing under AdamW."""
    lite = 'timm/tf_efficientnet_lite0'
    assert swapped(FASTER, lite).auto_scale_lr.rule == 'sqrt'
    assert swapped(FASTER, lite).optim_wrapper.optimizer.type == 'AdamW'
    assert 'rule' not in swapped(FASTER, 'res2net50_26w_4s').auto_scale_lr
    # A base that trains with AdamW already.
    assert swapped(RTMDET, 'res2net50_26w_4s').auto_scale_lr.rule == 'sqrt'
