"""How a detector is trained on few images, or for few iterations.

Published schedules have tens of thousands of iterations. In a few hundred their rates,
scaled to a small batch, move the new heads hardly at all, and their averages of the
weights average nothing. The figures here are those of ``docs/recipes.md``, which were
measured by ``tools/upkeep/ablate_recipes.py``, where no other source is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.config import Config

from ..detector_config.heads import argument_of
from ..detector_config.tree import plain, type_name
from .lr_scaling import find_scale
from .recipes import CONSTRUCTOR, NO_DECAY, Recipe, is_adaptive

FEW_IMAGES = 2000
FEW_ITERATIONS = 2000
# Below it one image more costs an iteration as much time as it teaches.
SMALLEST_BATCH = 4
# A rate times the iterations that it is for: what the heads can travel under Adam.
TRAVEL = 1.0
# Running statistics follow the weights at once: averages of those of mosaics and those
# of whole images, after which a short training ends, fit neither.
_EMA = dict(type='EMAHook', update_buffers=False, priority=49)
# Share of the training that the average of the weights looks back on, and its bounds
# in iterations.
_WINDOW_SHARE, _WINDOWS = 1 / 8, (10, 2000)
_WARM_UP_SHARE, _LONGEST_WARM_UP = 1 / 20, 500
# RTMDet, arXiv 2212.07784, sec. 4: the full rate for a half, then a cosine down to 5 %.
_FLAT_SHARE, _LAST_RATE = 1 / 2, 0.05
_CLOSING_SHARE = 1 / 10
_CLOSING_SOURCE = 'as YOLOX, arXiv 2107.08430, sec. 2.3, in its last 15 epochs'
_REGIONS, _PROPOSALS = 128, 300
_REGIONS_SOURCE = (
    'Fast R-CNN, arXiv 1504.08083, sec. 2.3, has 64, Faster R-CNN, 1506.01497, sec. '
    '4.1, 300'
)
_VALIDATIONS = 4
_CLIP = dict(max_norm=10.0, norm_type=2)


class Change(NamedTuple):
    """One thing that is not as in the base.

    Attributes:
        what: Of the training.
        value: That it has now, as words.
        why: The source of it.
    """

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Kind:
    """How fast detectors of a kind may learn.

    Attributes:
        name: In words.
        rate: The highest learning rate of AdamW for the heads.
        source: Of the rate.
        share: Of it, for a backbone with weights.
    """

    name: str
    rate: float
    source: str
    share: float = 1.0


_ABLATION = 'docs/recipes.md, rate'
TWO_STAGE = Kind('two-stage detector', 3e-4, _ABLATION)
QUERIES = Kind(
    'detector with queries', 2e-4, 'twice the rate of DINO, arXiv 2203.03605, app. D'
)
DENSE = Kind('one-stage detector', 1e-3, _ABLATION)
# At 3e-3 as well Lite0 gained nothing, and MobileNetV2 lost 3 points of AP on raccoon.
QUALITY = Kind("one-stage detector with RTMDet's head", 3e-3, _ABLATION, share=0.3)
PLAIN = Kind('one-stage detector without normalisation in its head', 3e-4, _ABLATION)


def kind_of(model: Mapping[str, Any]) -> Kind:
    """Tell which kind of detector a ``model`` is."""
    if model.get('roi_head'):
        return TWO_STAGE
    if model.get('decoder'):
        return QUERIES
    head = model.get('bbox_head') or {}
    if 'RTMDet' in type_name(head):
        return QUALITY
    return PLAIN if argument_of(head, 'norm_cfg') is None else DENSE


def is_short(images: int, iterations: int) -> bool:
    """Tell whether a training is one that published recipes are not made for."""
    return images < FEW_IMAGES or iterations < FEW_ITERATIONS


def small_batch(images: int, epochs: int, batch: int) -> int:
    """Images per iteration so that few of them make more iterations.

    Args:
        images: Of an epoch.
        epochs: Of the training.
        batch: Of the base.
    """
    while batch > SMALLEST_BATCH and epochs * -(-images // batch) < FEW_ITERATIONS:
        batch = max(batch // 2, SMALLEST_BATCH)
    return batch


def fit_short(
    config: Config, recipe: Recipe, decay: float, pretrained: bool, iterations: int
) -> list[Change]:
    """Train by the recipe for few iterations.

    Args:
        config: All of it, with its batch and length; changed in place.
        recipe: Of the backbone's family.
        decay: Layer-wise decay of the backbone's rate; 1 for none.
        pretrained: Whether the backbone starts from weights.
        iterations: Of the training on one GPU.

    Returns:
        What changed; nothing for a config with several optimisers.
    """
    wrapper = config.get('optim_wrapper') or {}
    if not wrapper.get('optimizer'):
        return []
    kind = kind_of(config.model)
    first, share = _optimiser(config, recipe, kind, iterations)
    changes = [first]
    source = recipe.source if recipe.delicate or share == 1.0 else kind.source
    changes += _groups(config, decay, share if pretrained else 1.0, source)
    changes += [_schedule(config, iterations), _average(config, iterations)]
    changes += _closing(config)
    changes += _regions(config)
    changes += _pace(config, iterations)
    return changes


def _optimiser(
    config: Config, recipe: Recipe, kind: Kind, iterations: int
) -> tuple[Change, float]:
    """The optimiser, and the share of its rate that the backbone learns with."""
    wrapper = config.optim_wrapper
    old = plain(wrapper['optimizer'])
    batch = config.train_dataloader['batch_size']
    batch *= int(wrapper.get('accumulative_counts', 1))
    usual = recipe.usual_rate(batch)
    if is_adaptive(wrapper):
        scale = find_scale(config, 1)
        usual = old['lr'] * (scale.factor if scale is not None else 1.0)
    floor = min(kind.rate, TRAVEL / iterations)
    rate = float(f'{min(max(usual, floor), kind.rate):.2g}')
    new = old if is_adaptive(wrapper) else dict(type='AdamW', weight_decay=0.05)
    wrapper['optimizer'] = dict(new, lr=rate)
    wrapper.setdefault('clip_grad', dict(_CLIP))
    config.auto_scale_lr = dict(enable=True, base_batch_size=batch, rule='sqrt')
    why = recipe.source
    if rate > usual:
        why = f'{usual:.2g} is too little for {iterations} iterations: {kind.source}'
    elif rate < float(f'{usual:.2g}'):
        why = f'{usual:.2g} is too much for so few images: {kind.source}'
    change = Change('optimiser', f'{new["type"]} {rate:g} for {batch} images', why)
    if recipe.delicate:  # published rates, whatever its heads need
        slow = min(usual, recipe.usual_rate(batch))
        return change, float(f'{min(slow / rate, 1.0):.2g}')
    return change, kind.share


def _groups(
    config: Config, decay: float, share: float, source: str
) -> Iterator[Change]:
    """Rates of the backbone beside the heads'; no decay of what is no matrix."""
    wrapper = config.optim_wrapper
    given = plain(wrapper.get('paramwise_cfg') or {})
    keys = {
        key: value
        for key, value in (given.get('custom_keys') or {}).items()
        if 'backbone' not in key
    }
    paramwise: dict[str, Any] = dict(NO_DECAY, bypass_duplicate=True)
    wrapper.pop('constructor', None)
    if decay != 1.0 or share != 1.0:
        wrapper['constructor'] = CONSTRUCTOR
        paramwise |= dict(decay_rate=decay, backbone_lr_mult=share)
        yield Change('backbone', f'{share:g} of the rate of the heads', source)
    if keys:
        paramwise['custom_keys'] = keys
    wrapper['paramwise_cfg'] = paramwise


def _schedule(config: Config, iterations: int) -> Change:
    """Warm-up, the full rate for half of the training, then a cosine."""
    warm_up = min(max(round(iterations * _WARM_UP_SHARE), 2), _LONGEST_WARM_UP)
    epochs = config.train_cfg.get('max_epochs')
    end = epochs or iterations
    begin = int(end * _FLAT_SHARE)
    cosine: dict[str, Any] = dict(
        type='CosineAnnealingLR',
        eta_min_ratio=_LAST_RATE,
        begin=begin,
        end=end,
        T_max=end - begin,
        by_epoch=bool(epochs),
    )
    if epochs:
        cosine['convert_to_iter_based'] = True
    start = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0)
    config.param_scheduler = [dict(start, end=warm_up), cosine]
    return Change(
        'schedule',
        f'{warm_up} iterations of warm-up, the full rate for half of the training, '
        f'then a cosine to {_LAST_RATE:.0%}',
        'RTMDet, arXiv 2212.07784, sec. 4',
    )


def _average(config: Config, iterations: int) -> Change:
    """An average of the weights that looks back as far as there is to look."""
    low, high = _WINDOWS
    window = round(min(max(iterations * _WINDOW_SHARE, low), high))
    hooks = [h for h in config.get('custom_hooks') or () if type_name(h) != 'EMAHook']
    kind = 'ExponentialMovingAverage'
    hooks.append(dict(_EMA, ema_type=kind, momentum=float(f'{1 / window:.2g}')))
    config.custom_hooks = hooks
    return Change(
        'average',
        f'of the weights, not of running statistics, over {window} iterations',
        'docs/recipes.md, average',
    )


def _closing(config: Config) -> Iterator[Change]:
    """End mosaic and mixup in the last tenth."""
    epochs = config.train_cfg.get('max_epochs')
    if not epochs:
        return
    last = max(round(epochs * _CLOSING_SHARE), 1)
    for hook in config.get('custom_hooks') or ():
        if hook.get('num_last_epochs'):
            hook['num_last_epochs'] = last
        elif hook.get('switch_epoch'):
            hook['switch_epoch'] = max(epochs - last, 1)
        else:
            continue
        yield Change(
            'mosaic', f'none in the last {last} of {epochs} epochs', _CLOSING_SOURCE
        )


def _regions(config: Config) -> Iterator[Change]:
    """Let a second stage learn from fewer regions, which is most of its time."""
    model = config.model
    trained = (model.get('train_cfg') or {}).get('rcnn')
    stages = trained if isinstance(trained, list) else [trained or {}]
    samplers = [stage['sampler'] for stage in stages if stage.get('sampler')]
    for sampler in samplers:
        if sampler.get('num', 0) > _REGIONS:
            sampler['num'] = _REGIONS
    proposals = (model.get('test_cfg') or {}).get('rpn') or {}
    if proposals.get('max_per_img', 0) > _PROPOSALS:
        proposals['max_per_img'] = _PROPOSALS
    if samplers:
        yield Change(
            'regions',
            f'{_REGIONS} of an image to learn from, {_PROPOSALS} to look at in a test',
            _REGIONS_SOURCE,
        )


def _pace(config: Config, iterations: int) -> Iterator[Change]:
    """Lose no time of a short training: measure seldom, in the faster memory format."""
    said = 'in the faster memory format'
    if iterations < FEW_ITERATIONS:
        loop = config.train_cfg
        length = loop.get('max_epochs') or loop['max_iters']
        loop['val_interval'] = max(round(length / _VALIDATIONS), 1)
        said = f'measured about {_VALIDATIONS} times, {said}'
    hooks = list(config.get('custom_hooks') or ())
    if not any('ChannelsLastHook' in type_name(hook) for hook in hooks):
        config.custom_hooks = [*hooks, dict(type='mmdet_backbones.ChannelsLastHook')]
    yield Change('pace', said, 'docs/speed.md')
