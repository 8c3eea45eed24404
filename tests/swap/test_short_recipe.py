"""The recipe for few images or iterations, in configs as swap writes them."""

from pathlib import Path

import pytest
from helpers.annotations import annotations
from mmengine.config import Config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.engine.lr_scaling import find_scale
from mmdet_backbones.engine.recipes import Traits, choose_recipe
from mmdet_backbones.engine.short_training import fit_short, kind_of, small_batch
from mmdet_backbones.swap.swapping import SwapOptions, notes_in, save

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py'
LITE, CONVNEXT, RESNET = (
    'timm/tf_efficientnet_lite0',
    'timm/convnext_tiny',
    'torchvision/resnet50',
)


TRAITS = Traits(
    model='tf_efficientnet_lite0',
    weights='efficientnet-lite0.pth',
    source='timm',
    strides=(2, 4, 8, 16, 32),
    batch_norm=True,
    attention=False,
    token_norm=False,
    groups=9,
)


@pytest.fixture
def swapped(tmp_path):
    def make(base: str, name: str, images: int, **order) -> tuple[Config, str]:
        data = tmp_path / f'data{images}'
        if not data.is_dir():
            annotations(data, images)
        out = tmp_path / 'swapped.py'
        save(SwapOptions(base, name, out, force=True, data=str(data), **order))
        return Config.fromfile(out), ' '.join(notes_in(out.read_text()).split())

    return make


def iterations(config: Config, images: int) -> int:
    each = -(-images // config.train_dataloader.batch_size)
    return config.train_cfg.max_epochs * each


@pytest.mark.parametrize(
    ('base', 'name', 'images', 'epochs'),
    [
        (YOLOX, LITE, 161, 10),
        (FASTER, RESNET, 30, 12),
        *(
            pytest.param(base, name, images, epochs, marks=pytest.mark.slow)
            for base in (FASTER, CASCADE, RETINANET, YOLOX, RTMDET, DINO, YOLOV3)
            for name, images, epochs in (
                (LITE, 161, 10),
                (CONVNEXT, 40, 3),
                (RESNET, 1900, 12),
                (RESNET, 3500, 1),
            )
        ),
    ],
)
def test_a_short_training_can_learn(base, name, images, epochs, swapped):
    """Rate, warm-up, average and schedule fit the iterations that there are."""
    config, told = swapped(base, name, images, epochs=epochs)
    assert check_config(config) == []
    total = iterations(config, images)
    wrapper, kind = config.optim_wrapper, kind_of(config.model)
    assert wrapper.optimizer.type == 'AdamW'
    assert find_scale(config, 1).factor == 1  # the rate is that of this batch
    rate = wrapper.optimizer.lr
    assert rate >= 0.95 * min(kind.rate, 1 / total)
    warm_up, cosine = config.param_scheduler
    assert warm_up.end <= max(total / 10, 2)
    assert (cosine.end, cosine.begin + cosine.T_max) == (epochs, epochs)
    (average,) = (h for h in config.custom_hooks if h.type == 'EMAHook')
    assert 1 / average.momentum <= max(total / 4, 10)
    assert not average.update_buffers
    assert wrapper.paramwise_cfg.norm_decay_mult == 0
    assert f'{total:,} iterations' in told
    assert 'two CPU cores' in told
    for said in ('optimiser:', 'schedule:', 'average:'):
        assert said in told
    assert 'momentum' not in wrapper.optimizer


@pytest.mark.parametrize(
    ('base', 'rate'),
    [
        (YOLOX, 1e-3),
        (RTMDET, 3e-3),
        (FASTER, 3e-4),
        (DINO, 2e-4),
        (RETINANET, 3e-4),
        ('mmdet::ssd/ssd300_coco.py', 3e-4),
        # By default of its class.
        ('mmdet::atss/atss_r50_fpn_1x_coco.py', 1e-3),
    ],
)
def test_every_kind_of_head_has_a_rate_of_its_own(base, rate):
    path, _ = Config._get_cfg_path(base, '')
    assert kind_of(Config.fromfile(path).model).rate == rate


@pytest.mark.parametrize(
    'base', [YOLOX, *(pytest.param(b, marks=pytest.mark.slow) for b in (FASTER, DINO))]
)
def test_the_recipe_of_the_base_stays_as_it_is(base, swapped, tmp_path):
    config, told = swapped(base, LITE, 161, epochs=10, recipe='base')
    (tmp_path / 'base.py').write_text(f'_base_ = {base!r}\n')
    theirs = Config.fromfile(tmp_path / 'base.py')
    assert config.optim_wrapper == theirs.optim_wrapper
    assert config.train_dataloader.batch_size == theirs.train_dataloader.batch_size
    kinds = [h['type'] for h in theirs.get('custom_hooks') or ()]
    assert [h['type'] for h in config.get('custom_hooks') or ()] == kinds
    assert '--recipe base' in told


def test_a_recipe_that_is_not_there(tmp_path):
    options = SwapOptions(YOLOX, LITE, tmp_path / 'out.py', recipe='blog')
    with pytest.raises(ValueError, match="fitting or base, got 'blog'"):
        save(options)


@pytest.mark.parametrize(
    ('base', 'rate'),
    [
        (FASTER, 3e-4),
        (RTMDET, 3e-3),
        pytest.param(YOLOX, 1e-3, marks=pytest.mark.slow),
        pytest.param(DINO, 2e-4, marks=pytest.mark.slow),
    ],
)
def test_delicate_weights_never_learn_faster_than_published(base, rate, swapped):
    """The heads get what they need, the top of a ConvNeXt its 1e-4 for 16 images."""
    config, told = swapped(base, CONVNEXT, 40, epochs=3)
    assert config.optim_wrapper.optimizer.lr == rate
    share = config.optim_wrapper.paramwise_cfg.backbone_lr_mult
    batch = config.train_dataloader.batch_size
    assert rate * share == pytest.approx(1e-4 * (batch / 16) ** 0.5, rel=0.05)
    assert 'backbone:' in told


def test_weights_learn_slower_where_the_heads_learn_fastest(swapped):
    config, told = swapped(RTMDET, LITE, 161, epochs=6)
    assert config.optim_wrapper.optimizer.lr == 3e-3
    assert config.optim_wrapper.paramwise_cfg.backbone_lr_mult == 0.3
    assert 'backbone: 0.3 of the rate of the heads (docs/recipes.md, rate)' in told
    config, told = swapped(RTMDET, LITE, 161, epochs=6, no_weights=True)
    assert 'backbone_lr_mult' not in config.optim_wrapper.paramwise_cfg
    config, told = swapped(RTMDET, CONVNEXT, 161, epochs=6)
    assert config.optim_wrapper.paramwise_cfg.backbone_lr_mult < 0.1
    assert 'of the rate of the heads (docs' not in told


def test_fewer_images_an_iteration_only_where_they_make_too_few(swapped):
    assert small_batch(161, 10, 32) == 4
    assert small_batch(161, 300, 32) == 16
    assert small_batch(161, 10, 2) == 2
    assert small_batch(100_000, 12, 32) == 32
    config, told = swapped(RTMDET, LITE, 161, epochs=10)
    assert config.train_dataloader.batch_size == 4
    assert '4 images per GPU instead of 32' in told
    config, _ = swapped(RTMDET, LITE, 161, epochs=10, batch=16)
    assert config.train_dataloader.batch_size == 16


@pytest.mark.slow
def test_what_a_stage_learns_from_is_less_in_every_stage(swapped):
    config, told = swapped(CASCADE, LITE, 161, epochs=2)
    counts = [stage.sampler.num for stage in config.model.train_cfg.rcnn]
    assert counts == [128, 128, 128]
    assert config.model.test_cfg.rpn.max_per_img == 300
    assert 'regions:' in told


def test_the_demo_is_trained_by_the_recipe_that_swap_writes():
    """Its config is what the recipe makes of it: nothing is tuned by hand."""
    path = 'configs/yolox/yolox_efficientnet-lite0_trees.py'
    config = Config.fromfile(path)
    count = config.train_cfg.max_epochs * -(-112 // 4)
    made = Config.fromfile(path)
    made.optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)
    )
    made.param_scheduler, made.custom_hooks = [], []
    made.train_cfg.val_interval, made.auto_scale_lr = 1, None
    changes = fit_short(made, choose_recipe(TRAITS), 1.0, True, count)
    assert {'optimiser', 'schedule', 'average', 'pace'} <= {c.what for c in changes}
    for name in (
        *('optim_wrapper', 'param_scheduler', 'custom_hooks', 'train_cfg'),
        'auto_scale_lr',
    ):
        assert made[name] == config[name], name


def test_data_that_is_not_here_keeps_the_recipe_of_the_family(tmp_path):
    out = tmp_path / 'out.py'
    save(SwapOptions(YOLOX, LITE, out))
    text = out.read_text()
    assert 'few images' not in text
    assert 'ChannelsLastHook' not in text
    assert Path(out).is_file()
