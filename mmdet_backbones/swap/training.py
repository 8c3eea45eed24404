"""How the swapped detector is trained: recipe, length, batch, rate and image size."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmengine.config import Config

from ..detector_config.detector import DetectorConfig
from ..detector_config.resizing import resize
from ..detector_config.tree import type_name, walk
from ..engine.lr_scaling import ABSOLUTE
from ..engine.recipes import (
    BATCH,
    Recipe,
    choose_recipe,
    is_adaptive,
    optimiser_settings,
    traits,
)
from ..engine.schedule import fit_schedule, planned_iterations
from ..engine.short_training import fit_short, is_short, kind_of, small_batch
from ..errors import UserError
from ..own_data.counting import count_images
from .card import needs
from .options import SwapOptions
from .replacement import Replacement


class Chosen(NamedTuple):
    """The recipe of a backbone.

    Attributes:
        recipe: Of its family; None to keep the base's.
        groups: Of its layers.
        pretrained: Whether it starts from weights.
    """

    recipe: Recipe | None
    groups: int
    pretrained: bool


def choose(options: SwapOptions, new: Replacement) -> Chosen:
    """Choose the recipe for a backbone.

    Args:
        options: What to swap.
        new: The backbone.
    """
    strides = [level.stride for level in new.levels]
    net = traits(new.net, new.entry.name, new.entry.source, new.weights, strides)
    recipe = None if options.recipe == 'base' else choose_recipe(net)
    return Chosen(recipe, net.groups, new.weights is not None)


def recipe_settings(base: DetectorConfig, chosen: Chosen) -> tuple[dict[str, Any], str]:
    """Optimiser, schedule and scaling of the rate for a family of backbones.

    Args:
        base: The detector.
        chosen: The recipe.

    Returns:
        Top-level names and values, and a sentence on the recipe.
    """
    recipe, groups, pretrained = chosen
    settings: dict[str, Any] = {}
    said = "Recipe: the base's optimiser, rates and hooks are kept (--recipe base)."
    if recipe is not None:
        settings, sentence = optimiser_settings(base.config, recipe, groups, pretrained)
        said = f'Recipe ({recipe.family}): {sentence}'
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
    return settings, said


def adjust(
    config: Config, options: SwapOptions, chosen: Chosen, sentence: str
) -> list[str]:
    """Fit a config to its data and to what is asked for.

    Args:
        config: All of it, with backbone, data and recipe; changed in place.
        options: What to swap.
        chosen: The recipe.
        sentence: On it, of :func:`recipe_settings`.

    Returns:
        The card of the recipe: paragraphs on what changed and why.

    Raises:
        UserError: Lists what is asked for and cannot be had.
    """
    images = count_images(config)
    batch = _batch(config, options, images if chosen.recipe else None)
    count = images and planned_iterations(config, images, options.epochs, batch)
    short = bool(chosen.recipe and images and count and is_short(images, count))
    if short:
        config.param_scheduler = []  # of another length
    notes, problems = [], []
    steps = (
        lambda: _set_batch(config, options, batch),
        lambda: _set_size(config, options.size),
        lambda: fit_schedule(config, images, options.epochs),
    )
    for step in steps:
        try:
            notes.append(step())
        except UserError as error:
            problems.append(str(error))
    recipe = [sentence]
    if short and count and not problems:
        recipe = _short_card(config, chosen, count)
    try:
        notes.append(_set_rate(config, options.lr))
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError('; '.join(problems))
    _measure_per_class(config)
    if images and count:
        notes.append(needs(config, images, count))
    return [*recipe, *(note for note in notes if note)]


def _short_card(config: Config, chosen: Chosen, iterations: int) -> list[str]:
    """Train by the recipe for few iterations, and tell what that is."""
    recipe, groups, pretrained = chosen
    assert recipe is not None
    decay = recipe.decay_rate(groups) if pretrained else 1.0
    changes = fit_short(config, recipe, decay, pretrained, iterations)
    kind = kind_of(config.model).name
    head = f'Recipe ({kind}, {recipe.family}, for few images or iterations):'
    return [head, *(f'- {c.what}: {c.value} ({c.why}).' for c in changes)]


def _batch(config: Config, options: SwapOptions, images: int | None) -> int | None:
    """Images per iteration; fewer than in the base where few images are few steps."""
    if options.batch is not None or not images:
        return options.batch
    loader, loop = config.get('train_dataloader') or {}, config.get('train_cfg') or {}
    old = loader.get('batch_size')
    epochs = options.epochs or loop.get('max_epochs')
    if not old or not epochs:
        return None
    new = small_batch(images, epochs, old)
    return new if new != old else None


def _set_batch(config: Config, options: SwapOptions, batch: int | None) -> str:
    if batch is None:
        return ''
    loader = config.get('train_dataloader')
    if not loader:
        raise UserError('--batch: the base has no train_dataloader')
    old = loader.get('batch_size')
    loader['batch_size'] = batch
    why = '--batch' if options.batch else 'more iterations of few images'
    said = f'Batch: {batch} images per GPU instead of {old} ({why}).'
    if options.lr is not None:
        return said
    if old and not (config.get('auto_scale_lr') or {}).get('base_batch_size'):
        # Nothing else tells which batch the base's rate is for.
        _rate_is_for(config, old * _accumulated(config))
    return said


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
