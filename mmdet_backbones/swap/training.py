"""How the swapped detector is trained: recipe, length, batch, rate and image size."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from ..detector_config.detector import DetectorConfig
from ..detector_config.resizing import resize
from ..detector_config.tree import type_name, walk
from ..engine.lr_scaling import ABSOLUTE
from ..engine.recipes import (
    BATCH,
    choose_recipe,
    is_adaptive,
    optimiser_settings,
    traits,
)
from ..engine.schedule import fit_schedule
from ..errors import UserError
from ..own_data.counting import count_images
from .options import SwapOptions
from .replacement import Replacement


def recipe_settings(
    base: DetectorConfig, new: Replacement
) -> tuple[dict[str, Any], str]:
    """Optimiser, schedule and scaling of the rate for a family of backbones.

    Args:
        base: The detector.
        new: The backbone.

    Returns:
        Top-level names and values, and a sentence on the recipe.
    """
    strides = [level.stride for level in new.levels]
    net = traits(new.net, new.entry.name, new.entry.source, new.weights, strides)
    recipe = choose_recipe(net)
    settings, sentence = optimiser_settings(
        base.config, recipe, net.groups, new.weights is not None
    )
    wrapper = settings.get('optim_wrapper') or {}
    scaling = dict(base.config.get('auto_scale_lr') or {})
    if 'optimizer' in wrapper and not scaling.get('base_batch_size'):
        scaling = dict(base_batch_size=BATCH)
        settings['auto_scale_lr'] = dict(scaling)
    if scaling.get('base_batch_size') and not scaling.get('enable'):
        # The rate of the recipe is that of the batch that is named there.
        scaled = settings.setdefault('auto_scale_lr', {})
        scaled['enable'] = True
        if is_adaptive(wrapper) or is_adaptive(base.config.get('optim_wrapper') or {}):
            # A small batch with a proportional rate hardly learns under Adam.
            scaled['rule'] = scaling.get('rule', 'sqrt')
    return settings, f'Recipe ({recipe.family}): {sentence}'


def adjust(config: Config, options: SwapOptions) -> list[str]:
    """Fit a config to its data and to what is asked for.

    Args:
        config: All of it, with backbone, data and recipe; changed in place.
        options: What to swap.

    Returns:
        Sentences on what changed.

    Raises:
        UserError: Lists what is asked for and cannot be had.
    """
    notes, problems = [], []
    steps = (
        lambda: _set_batch(config, options.batch, options.lr is None),
        lambda: _set_size(config, options.size),
        lambda: fit_schedule(config, count_images(config), options.epochs),
        lambda: _set_rate(config, options.lr),
    )
    for step in steps:
        try:
            notes.append(step())
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError('; '.join(problems))
    _measure_per_class(config)
    return [note for note in notes if note]


def _set_batch(config: Config, batch: int | None, rate_stays: bool) -> str:
    if batch is None:
        return ''
    loader = config.get('train_dataloader')
    if not loader:
        raise UserError('--batch: the base has no train_dataloader')
    old = loader.get('batch_size')
    loader['batch_size'] = batch
    said = f'Batch: {batch} images per GPU instead of {old} (--batch).'
    if not rate_stays:
        return said
    if old and not (config.get('auto_scale_lr') or {}).get('base_batch_size'):
        # Nothing else tells which batch the base's rate is for.
        _rate_is_for(config, old * _accumulated(config))
    base = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    return (
        f'{said} The rate is that of {base}, and training scales it to its own batch.'
    )


def _rate_is_for(config: Config, batch: int) -> None:
    """Record which batch the rate of a config is for, and have it scaled."""
    scaling = dict(config.get('auto_scale_lr') or {})
    scaling |= dict(enable=True, base_batch_size=batch)
    if is_adaptive(config.get('optim_wrapper') or {}):
        scaling.setdefault('rule', 'sqrt')
    config.auto_scale_lr = scaling


def _accumulated(config: Config) -> int:
    return int((config.get('optim_wrapper') or {}).get('accumulative_counts', 1))


def _set_size(config: Config, size: tuple[int, int] | None) -> str:
    if size is None:
        return ''
    resize(config, size)
    return f'Images: {size[0]} x {size[1]} pixels, height by width (--size).'


def _set_rate(config: Config, rate: float | None) -> str:
    if rate is None:
        return ''
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    old = optimizer.get('lr')
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    if not old or not batch:
        missing = 'optim_wrapper.optimizer.lr' if not old else 'batch_size'
        raise UserError(
            f'--lr: the base has no {missing}: write optim_wrapper = dict(optimizer='
            f"dict(type='SGD', lr={rate}, momentum=0.9)) into it"
        )
    optimizer['lr'] = rate
    given = config.get('param_scheduler') or ()
    for step in [given] if isinstance(given, dict) else given:
        for key in ABSOLUTE:
            # The bounds of a momentum are no rates.
            if step.get(key) and 'Momentum' not in type_name(step):
                step[key] = float(f'{step[key] * rate / old:.4g}')
    _rate_is_for(config, batch * _accumulated(config))
    return (
        f'Rate: {rate} instead of {old} (--lr), for the {batch} images of one GPU; on '
        'more it is scaled to their batch.'
    )


def _measure_per_class(config: Config) -> None:
    """Have CocoMetric tell of every class."""
    for name in ('val_evaluator', 'test_evaluator'):
        for _, metric in walk(config.get(name)):
            if type_name(metric) == 'CocoMetric':
                metric['classwise'] = True
