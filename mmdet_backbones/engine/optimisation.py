"""The optimiser, warm-up and freezing of a config with another backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..detector_config.tree import plain
from .recipes import BATCH, Recipe

_ADAPTIVE = ('AdamW', 'Adam', 'AdamP', 'Lion', 'LAMB')
_CONSTRUCTOR = 'mmdet_backbones.LayerDecayConstructor'
_NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)
# Options of mmengine's constructor that ours takes too.
_TAKEN = (
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'flat_decay_mult',
    'bypass_duplicate',
)
_WARM_UP = ('LinearLR', 'QuadraticWarmupLR')
# Of a pretrained backbone beside heads that start anew, as in mmdet's DETR configs.
_PRETRAINED_SHARE = 0.1


def optimiser_settings(
    config: Mapping[str, Any], recipe: Recipe, groups: int, pretrained: bool
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
    own = _kind(wrapper)
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
    return settings, (
        f'AdamW {rate} for the batch of {batch}{layers}, instead of {own} '
        f'{optimizer.get("lr")} ({recipe.source}).'
    )


def is_adaptive(wrapper: Mapping[str, Any]) -> bool:
    """Tell whether an optimiser wrapper holds Adam or one of its kin."""
    return _kind(wrapper) in _ADAPTIVE


def _kind(wrapper: Mapping[str, Any]) -> str:
    optimizer = wrapper.get('optimizer') or {}
    return str(optimizer.get('type', '')).rpartition('.')[2]


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
    paramwise: dict[str, Any] = dict(_NO_DECAY)
    if recipe.stem_share < 1:
        new['constructor'] = _CONSTRUCTOR
        paramwise = dict(decay_rate=decay, **_NO_DECAY)
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
    paramwise |= {**_NO_DECAY, **{k: v for k, v in given.items() if k in _TAKEN}}
    # Factors of the old backbone's parts would multiply with those of the layers.
    keys = {key: value for key, value in keys.items() if 'backbone' not in key}
    if keys:
        paramwise['custom_keys'] = keys
    settings = dict(constructor=_CONSTRUCTOR, paramwise_cfg=paramwise)
    layers = f', and layer-wise decay {decay} over {groups} groups below'
    return dict(optim_wrapper=settings), (
        f'{kept}, with {share} of its rate for the top of the backbone'
        f'{layers if decay != 1 else ""} ({recipe.source}).'
    )


def short_warm_up(
    config: Mapping[str, Any], schedulers: Any, images: int
) -> list[dict[str, Any]] | None:
    """Keep the warm-up to a tenth of the training, which on small data is short.

    Args:
        config: The base.
        schedulers: ``param_scheduler`` as it will be.
        images: To train on.

    Returns:
        The schedulers with a shorter warm-up, None if it is short enough.
    """
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    loop = config.get('train_cfg') or {}
    if not batch or not schedulers:
        return None
    total = loop.get('max_iters') or -(-images // batch) * loop.get('max_epochs', 0)
    longest = max(total // 10, 1)
    given = [schedulers] if isinstance(schedulers, Mapping) else list(schedulers)
    new = [dict(plain(step)) for step in given]
    first = new[0]
    warms = str(first['type']).rpartition('.')[2] in _WARM_UP
    if not warms or first.get('by_epoch', True) or first.get('end', 0) <= longest:
        return None
    # A schedule by iterations may go on where the warm-up ends.
    for step in new[1:]:
        if step.get('begin') == first['end'] and not step.get('by_epoch', True):
            step['begin'] = longest
    first['end'] = longest
    return new


def _schedulers(
    config: Mapping[str, Any], factor: float, recipe: Recipe
) -> list[dict[str, Any]] | None:
    """The base's schedule with a warm-up that is long enough and rates that follow."""
    given = config.get('param_scheduler')
    if not given:
        return None
    old = [plain(given)] if isinstance(given, Mapping) else plain(list(given))
    new = [dict(step) for step in old]
    for step in new:
        if step.get('eta_min'):
            step['eta_min'] = float(f'{step["eta_min"] * factor:.2g}')
    first = new[0]
    warms = str(first['type']).rpartition('.')[2] in _WARM_UP
    if warms and not first.get('by_epoch', True):
        first['end'] = max(first.get('end', 0), recipe.warm_up)
    elif not warms:
        if str(first['type']).endswith('ConstantLR') and not first.get('begin', 0):
            # Warm-up in one step, which the new one takes the place of.
            del new[0]
        warm_up = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0)
        new.insert(0, dict(warm_up, end=recipe.warm_up))
    return new if new != old else None
