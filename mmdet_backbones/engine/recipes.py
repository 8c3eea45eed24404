"""How a detector is trained with a backbone of some family: one table, with sources.

From the recipe follow optimiser, warm-up and layer-wise rates of a config.

Every figure is for a batch of 16 images, as in mmdet's R-CNN configs, and scaled to
the batch of the base by the square root, the rule for Adam (arXiv 2205.10287).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..backbones.layer_groups import layer_groups
from ..compat.batch_norm import is_batch_norm
from ..detector_config.tree import Part, plain, type_name
from .layer_decay import MMENGINE_OPTIONS
from .schedule import WARM_UP

BATCH = 16
# Where the base's SGD gives way all the same, in short trainings.
_MODERN_RATE = 2e-4
_ADAPTIVE = ('AdamW', 'Adam', 'AdamP', 'Lion', 'LAMB')
CONSTRUCTOR = 'mmdet_backbones.LayerDecayConstructor'
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)
# Of a pretrained backbone beside heads that start anew, as in mmdet's DETR configs.
_PRETRAINED_SHARE = 0.1


@dataclass(frozen=True)
class Traits:
    """What a recipe is chosen by.

    Attributes:
        model: Name of the net without its source, in lower case.
        weights: Where its weights are, or None for random ones.
        source: Of the catalog.
        strides: Of all of its levels.
        batch_norm: Whether it has batch normalisation.
        attention: Whether it has attention over tokens.
        token_norm: Whether it has layer or RMS normalisation.
        groups: Number of its layer groups, the stem among them.
    """

    model: str
    weights: str | None
    source: str
    strides: tuple[int, ...]
    batch_norm: bool
    attention: bool
    token_norm: bool
    groups: int


@dataclass(frozen=True)
class Recipe:
    """An optimiser for a family.

    Attributes:
        family: What it is for.
        fits: Tells whether a backbone belongs to it; the first recipe that fits is
            taken.
        source: Where the figures are from.
        lr: Learning rate of AdamW for a batch of 16, None to keep the base's optimiser.
        weight_decay: Of AdamW; none for normalisation, biases and embeddings.
        stem_share: Share of the full learning rate that the stem learns with; layers
            between fall evenly. 1 for no layer-wise decay.
        warm_up: Iterations of linear warm-up.
        clip_norm: Largest norm of the gradient, or None for no clipping.
        delicate: Whether it never learns faster than by ``lr``, however short the
            training is.
    """

    family: str
    fits: Callable[[Traits], bool]
    source: str
    lr: float | None = None
    weight_decay: float = 0.05
    stem_share: float = 1.0
    warm_up: int = 1000
    clip_norm: float | None = None
    delicate: bool = False

    def usual_rate(self, batch: int) -> float:
        """Learning rate of AdamW for a batch, whatever long trainings take."""
        rate = _MODERN_RATE if self.lr is None else self.lr
        return rate * math.sqrt(batch / BATCH)

    def rate(self, batch: int) -> float:
        """Learning rate for a batch, two digits."""
        assert self.lr is not None
        return float(f'{self.lr * math.sqrt(batch / BATCH):.2g}')

    def decay_rate(self, groups: int) -> float:
        """Factor of the learning rate from one layer group to the one before it."""
        if self.stem_share == 1.0:
            return 1.0
        rate = self.stem_share ** (1 / max(groups, 1))
        return round(min(max(rate, 0.7), 0.95), 2)


def _plain_vit(net: Traits) -> bool:
    return len(net.strides) == 1 and net.attention


def _convnext(net: Traits) -> bool:
    return net.token_norm and not net.batch_norm and not net.attention


def _transformer(net: Traits) -> bool:
    return net.attention or (net.token_norm and not net.batch_norm)


def _efficient(net: Traits) -> bool:
    return (
        re.search(
            r'efficientnet|mobilenet_?v3|mobilenet-v3|mobilenetv[45]|lcnet|mnasnet|'
            r'fbnet|mixnet|regnet_?y|ghostnet|repvit|mobileone|nfnet',
            net.model,
        )
        is not None
    )


# Tags of timm's weights that were trained with the classical recipe of ResNet: SGD,
# step decay, no strong augmentation.
_CLASSICAL_TAGS = re.compile(r'((tv|gluon|ms|ssld)_)?in1k$|$')
# Attention between places of a map; gates over channels, and plugins of a ResNet, are
# something else.
_ATTENTION = re.compile(
    r'(?<!Channel)(?<!Split)(?<!Generalized)(Attention|MSA)|CrossCovarianceAttn'
)


def _modern_weights(net: Traits) -> bool:
    if net.weights is None:
        return False
    if net.source == 'timm':
        tag = _timm_tag(net.weights)
        return tag is not None and _CLASSICAL_TAGS.match(tag) is None
    return re.search(r'_V2\b|[-_]rsb[-_]|/rsb/', net.weights) is not None


def _timm_tag(weights: str) -> str | None:
    if not weights.startswith('timm://'):
        return None
    name = weights.removeprefix('timm://')
    if '.' in name:
        return name.partition('.')[2]
    import timm

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return cfg.tag if cfg is not None else None


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        'plain ViT',
        _plain_vit,
        'ViTDet, arXiv 2203.16527, app. A.2: AdamW, weight decay 0.1, layer-wise decay '
        '0.7 (12 blocks), 0.8 (24), 0.9 (32), 1e-4 for a batch of 64',
        lr=5e-5,
        weight_decay=0.1,
        stem_share=0.01,
        clip_norm=1.0,
        delicate=True,
    ),
    Recipe(
        'ConvNeXt and other nets with layer normalisation',
        _convnext,
        "ConvNeXt, arXiv 2201.03545, app. A.3, and mmdet's configs/convnext: AdamW "
        '1e-4 to 2e-4, weight decay 0.05, layer-wise decay 0.7 over 7 groups of layers',
        lr=1e-4,
        stem_share=0.08,
        clip_norm=1.0,
        delicate=True,
    ),
    Recipe(
        'hierarchical transformer',
        _transformer,
        "Swin, arXiv 2103.14030, app. A2.2, and mmdet's configs/swin: AdamW 1e-4, "
        'weight decay 0.05 but for normalisation and position; the mild layer-wise '
        'decay is our choice',
        lr=1e-4,
        stem_share=0.5,
        clip_norm=1.0,
        delicate=True,
    ),
    Recipe(
        'EfficientNet, MobileNetV3 and their kin',
        _efficient,
        'trained with RMSprop or AdamW by their authors (arXiv 1905.11946, sec. 5.2; '
        '1905.02244, sec. 6.1), so adaptive here: rates as for modern ResNet weights',
        lr=_MODERN_RATE,
        warm_up=500,
        clip_norm=10.0,
    ),
    Recipe(
        'convolutional net with weights of a modern recipe',
        _modern_weights,
        "mmdet's configs/resnet_strikes_back (pull request 7001; arXiv 2110.00476): "
        'AdamW 2e-4, weight decay 0.05, Faster R-CNN 37.4 -> 40.8 AP; SGD loses 5 AP '
        'with such weights (pytorch/vision V2, mmdetection 8497)',
        lr=_MODERN_RATE,
        warm_up=500,
    ),
    Recipe(
        'convolutional net',
        lambda net: True,
        "the base's own optimiser, chosen for a net of this kind",
    ),
)


def choose_recipe(net: Traits) -> Recipe:
    """Return the first recipe of the table that fits."""
    return next(recipe for recipe in RECIPES if recipe.fits(net))


def traits(
    net: nn.Module,
    name: str,
    source: str,
    weights: str | None,
    strides: Sequence[int],
) -> Traits:
    """Look at a backbone.

    Args:
        net: On the meta device.
        name: Of the catalog.
        source: Of the catalog.
        weights: That training starts from, or None.
        strides: Of all of its levels.
    """
    batch_norm, attention, token_norm = _layers(net)
    return Traits(
        model=name.rpartition('/')[2].lower(),
        weights=weights,
        source=source,
        strides=tuple(sorted(set(strides))),
        batch_norm=batch_norm,
        attention=attention,
        token_norm=token_norm,
        groups=len(layer_groups(net)),
    )


def _layers(net: nn.Module) -> tuple[bool, bool, bool]:
    """Whether a net has batch normalisation, attention and layer normalisation."""
    kinds = {type(module).__name__ for module in net.modules()}
    return (
        any(map(is_batch_norm, net.modules())),
        any(_ATTENTION.search(kind) for kind in kinds),
        any(re.search('LayerNorm|RmsNorm|LN2d', kind) for kind in kinds),
    )


def learns_little_alone(net: nn.Module) -> bool:
    """Tell whether a net needs far more images than those of most detectors.

    Transformers and ConvNeXts do; nets with batch or group normalisation learn from
    random weights in a longer training (arXiv 1811.08883).
    """
    batch_norm, attention, token_norm = _layers(net)
    return attention or (token_norm and not batch_norm)


def optimiser_settings(
    config: Part, recipe: Recipe, groups: int, pretrained: bool
) -> tuple[dict[str, Any], str]:
    """What a config says to train by a recipe.

    Args:
        config: The base.
        recipe: Of the backbone's family.
        groups: Layer groups of the backbone.
        pretrained: Whether it starts from weights.

    Returns:
        Top-level names and values, none if the base's optimiser stays; and a sentence.
    """
    wrapper = plain(config.get('optim_wrapper') or {})
    optimizer = wrapper.get('optimizer') or {}
    own = type_name(optimizer)
    if own in _ADAPTIVE:
        return _adaptive(wrapper, recipe, groups, pretrained)
    if recipe.lr is None:
        return {}, f"the base's {own or 'optimiser'} is kept ({recipe.source})."
    batch = (config.get('auto_scale_lr') or {}).get('base_batch_size', BATCH)
    rate = recipe.rate(batch)
    decay = recipe.decay_rate(groups) if pretrained else 1.0
    new = _wrapper(wrapper, recipe, rate, decay)
    settings: dict[str, Any] = dict(optim_wrapper=new)
    schedulers = _schedulers(config, rate / float(optimizer.get('lr', rate)), recipe)
    if schedulers is not None:
        settings['param_scheduler'] = schedulers
    layers = f', layer-wise decay {decay} over {groups} groups' if decay != 1 else ''
    instead = f', instead of {own} {optimizer.get("lr")}' if own else ''
    return settings, (
        f'AdamW {rate} for the batch of {batch}{layers}{instead} ({recipe.source}).'
    )


def is_adaptive(wrapper: Part) -> bool:
    """Tell whether an optimiser wrapper holds Adam or one of its kin."""
    return type_name(wrapper.get('optimizer') or {}) in _ADAPTIVE


def _wrapper(
    old: dict[str, Any], recipe: Recipe, rate: float, decay: float
) -> dict[str, Any]:
    """An optimiser wrapper like the base's, around AdamW."""
    new: dict[str, Any] = dict(_delete_=True, type=old.get('type', 'OptimWrapper'))
    new |= {
        key: old[key]
        for key in ('loss_scale', 'accumulative_counts', 'dtype')
        if key in old
    }
    new['optimizer'] = dict(type='AdamW', lr=rate, weight_decay=recipe.weight_decay)
    paramwise: dict[str, Any] = dict(NO_DECAY)
    if recipe.stem_share < 1:
        new['constructor'] = CONSTRUCTOR
        paramwise = dict(decay_rate=decay, **NO_DECAY)
    new['paramwise_cfg'] = dict(paramwise, bypass_duplicate=True)
    if recipe.clip_norm is not None:
        new['clip_grad'] = dict(max_norm=recipe.clip_norm, norm_type=2)
    return new


def _adaptive(
    wrapper: dict[str, Any], recipe: Recipe, groups: int, pretrained: bool
) -> tuple[dict[str, Any], str]:
    """A base with AdamW keeps it; its backbone may learn more slowly."""
    kept = f"the base's {wrapper['optimizer']['type']} is kept"
    given = plain(wrapper.get('paramwise_cfg') or {})
    keys = given.get('custom_keys') or {}
    share = (keys.get('backbone') or {}).get('lr_mult')
    # mmdet's own constructor of that kind knows the layers of ConvNeXt only.
    foreign = 'LearningRateDecay' in str(wrapper.get('constructor'))
    decay = recipe.decay_rate(groups) if pretrained else 1.0
    if not pretrained and not foreign:
        return {}, f'{kept}; the backbone starts from random weights.'
    if decay == 1.0 and share is not None and not foreign:
        return {}, f'{kept}, with {share} of its rate for the backbone.'
    if share is None:
        share = _PRETRAINED_SHARE if pretrained and not foreign else 1.0
    paramwise = dict(_delete_=True, decay_rate=decay, backbone_lr_mult=share)
    paramwise |= {
        **NO_DECAY,
        **{k: v for k, v in given.items() if k in MMENGINE_OPTIONS},
    }
    # Factors of the old backbone's parts would multiply with those of the layers.
    keys = {key: value for key, value in keys.items() if 'backbone' not in key}
    if keys:
        paramwise['custom_keys'] = keys
    settings = dict(constructor=CONSTRUCTOR, paramwise_cfg=paramwise)
    layers = f', and layer-wise decay {decay} over {groups} groups below'
    return dict(optim_wrapper=settings), (
        f'{kept}, with {share} of its rate for the top of the backbone'
        f'{layers if decay != 1 else ""} ({recipe.source}).'
    )


def _schedulers(
    config: Part, factor: float, recipe: Recipe
) -> list[dict[str, Any]] | None:
    """The base's schedule with a warm-up that is long enough and rates that follow."""
    old, new = (_steps(config.get('param_scheduler')) for _ in range(2))
    if not new:
        return None
    for step in new:
        if step.get('eta_min'):
            step['eta_min'] = float(f'{step["eta_min"] * factor:.2g}')
    first = new[0]
    if type_name(first) not in WARM_UP:
        if type_name(first) == 'ConstantLR' and not first.get('begin', 0):
            # Warm-up in one step, which the new one takes the place of.
            del new[0]
        warm_up = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0)
        new.insert(0, dict(warm_up, end=recipe.warm_up))
    elif not first.get('by_epoch', True):
        first['end'] = max(first.get('end', 0), recipe.warm_up)
    return new if new != old else None


def _steps(schedulers: Any) -> list[dict[str, Any]]:
    """Copy schedulers, of which there may be one alone or none."""
    given = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    return [plain(step) for step in given or ()]
