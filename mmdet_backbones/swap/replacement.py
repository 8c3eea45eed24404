"""The new backbone: its config, weights, freezing and what it looks like."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from torch import nn

from ..arguments import arguments_of
from ..backbones.contract import Backbone
from ..catalog.entries import find
from ..catalog.entry import Entry
from ..catalog.preprocessing import preprocess_of
from ..commands import command
from ..compat.batch_norm import is_batch_norm
from ..detector_config.detector import DETECTOR_PROBE_SIZE, DetectorConfig
from ..errors import UserError, explain
from ..levels import ALL, FrozenStages, Level, Preprocess
from ..registry import MODELS
from ..shapes.build import build_weightless, fixed_size, idle_parameters
from ..shapes.structure import largest_parts, probe_levels
from .level_plan import LevelPlan

# Weights that are checkpoints of whole classifiers, for mmengine's own loader.
_PREFIXES = {'mmdet.CSPNeXt': 'backbone.'}


@dataclass(frozen=True)
class Replacement:
    """A backbone of the catalog, looked at but not yet told its levels.

    Attributes:
        entry: Of the catalog.
        net: On the meta device, with all of its levels.
        levels: All of them, shallow to deep.
        weights: Where training starts from, or None for random weights.
        preprocess: How images are prepared for it, or None if that is open.
        asked: Arguments of its class that the user asks for.
    """

    entry: Entry
    net: nn.Module
    levels: tuple[Level, ...]
    weights: str | None
    preprocess: Preprocess | None
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation."""
        return any(map(is_batch_norm, self.net.modules()))

    @cached_property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """What its class takes."""
        return arguments_of(MODELS.get(str(self.entry.config['type'])))[0]


def load_replacement(
    name: str,
    checkpoint: str | None = None,
    no_weights: bool = False,
    asked: Mapping[str, Any] | None = None,
) -> Replacement:
    """Look at a backbone of the catalog; nothing is downloaded or allocated.

    Args:
        name: As :func:`~mmdet_backbones.catalog.find` takes it.
        asked: Arguments of its class beside those of the catalog.
        checkpoint: Weights instead of the usual ones.
        no_weights: Leave out any weights.

    Raises:
        UserError: If there is no such backbone (the nearest are named), it cannot be
            built, or it takes images of one size only.
    """
    asked = asked or {}
    entry = find(name)
    _check_asked(entry, asked)
    net = build_weightless({**entry.config, **entry.every_level, **asked})
    size = fixed_size(net)
    if size is not None:
        raise UserError(
            f'{name} takes images of {size[0]} x {size[1]} only, and detectors show '
            'their backbone images of many sizes: take another net, see '
            f'{command("list")}'
        )
    levels = getattr(net, 'levels', None)
    if levels is None:
        try:
            levels = probe_levels(net)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise UserError(
                f'{name} gives no levels for a detector: {explain(error)}'
            ) from error
    if isinstance(net, Backbone):
        levels = _by_stride(entry, levels)
    weights = None if no_weights else checkpoint or entry.weights
    preprocess = preprocess_of(entry, net)
    return Replacement(entry, net, tuple(levels), weights, preprocess, asked)


def _check_asked(entry: Entry, asked: Mapping[str, Any]) -> None:
    known, every = arguments_of(MODELS.get(str(entry.config['type'])))
    unknown = [name for name in asked if every and name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        raise UserError(
            f'--backbone-option: {entry.config["type"]} takes no '
            f'{", ".join(unknown)}'
            + (f'; did you mean {near[0]}?' if near else '')
            + f' It takes {", ".join(known)}'
        )


def _by_stride(entry: Entry, levels: Sequence[Level]) -> Sequence[Level]:
    """Of levels that share a stride, the one that the class means by it."""
    strides = sorted({level.stride for level in levels})
    if len(strides) in (1, len(levels)):
        return levels
    # Not always the deepest: the last may be the convolution before a classifier.
    return build_weightless({**entry.config, 'out_strides': strides}).levels  # type: ignore[return-value]


def backbone_settings(
    new: Replacement,
    plan: LevelPlan,
    base: DetectorConfig,
    frozen: FrozenStages | None = None,
) -> dict[str, Any]:
    """The dict that stands under ``model.backbone``.

    Args:
        new: The backbone.
        plan: Of the levels that it shall return.
        base: The detector, whose freezing is kept where there are weights.
        frozen: Stages without training instead of those of the base.

    Raises:
        UserError: If it cannot return these levels alone, or not the image, or cannot
            be frozen so.
    """
    settings = {**new.entry.config, **_level_arguments(new, plan.strides)}
    if plan.image and 'out_image' not in new.arguments:
        raise UserError(
            f'--neck adapter: {settings["type"]} cannot hand on the image: write '
            '--neck sfp, or take a net of timm/'
        )
    settings.update(dict(out_image=True) if plan.image else {})
    settings.update(_freezing(new, settings, base, frozen))
    settings.update(new.asked)
    settings['init_cfg'] = None
    if new.weights is not None:
        init_cfg = dict(type='Pretrained', checkpoint=new.weights)
        prefix = _PREFIXES.get(str(settings['type']))
        if prefix is not None:
            init_cfg['prefix'] = prefix
        settings['init_cfg'] = init_cfg
    return settings


def _level_arguments(new: Replacement, strides: Sequence[int]) -> dict[str, Any]:
    if isinstance(new.net, Backbone):
        return dict(out_strides=tuple(strides))
    # Of the levels that share a stride the deepest one has it, as everywhere.
    index = {level.stride: level.index for level in new.levels}
    indices = tuple(index[stride] for stride in strides)
    if 'out_indices' not in new.arguments:
        if indices != tuple(level.index for level in new.levels):
            every = [str(level.stride) for level in new.levels]
            raise UserError(
                f'{new.entry.name} always returns all of its levels, of the strides '
                f'{", ".join(every)}: write --strides {" ".join(every)}'
            )
        return {}
    arguments: dict[str, Any] = dict(out_indices=indices)
    count = indices[-1] + 1
    if 'num_stages' in new.arguments and count < len(new.levels):
        # mmdet builds stages that no output needs unless it is told not to.
        fewer = dict(arguments, num_stages=count, **_by_stage(new, count))
        try:
            build_weightless({**new.entry.config, **fewer})
        except UserError:
            return arguments
        return fewer
    return arguments


def _by_stage(new: Replacement, count: int) -> dict[str, Any]:
    """Arguments that have one value for each stage, cut to fewer stages."""
    values = {
        name: new.entry.config.get(name, parameter.default)
        for name, parameter in new.arguments.items()
        if name != 'out_indices'
    }
    return {
        name: type(value)(value[:count])
        for name, value in values.items()
        if isinstance(value, (list, tuple)) and len(value) == len(new.levels)
    }


def _freezing(
    new: Replacement,
    settings: Mapping[str, Any],
    base: DetectorConfig,
    asked: FrozenStages | None,
) -> dict[str, Any]:
    """As in the base with pretrained weights; nothing frozen without."""
    known = new.arguments
    found: dict[str, Any] = {}
    frozen: FrozenStages = -1
    if asked is not None:
        _check_frozen(new, asked)
        frozen = asked
    elif new.weights:
        frozen = _frozen_in(base)
        if frozen != ALL:
            frozen = _frozen(new, frozen) if new.batch_norm else -1
        elif not isinstance(new.net, Backbone):
            frozen = -1
    if 'frozen_stages' in known and (
        frozen != -1 or known['frozen_stages'].default != -1
    ):
        found['frozen_stages'] = frozen
    if 'norm_eval' in known and new.batch_norm:
        found['norm_eval'] = bool(new.weights and base.of_backbone('norm_eval', False))
    return {key: value for key, value in found.items() if settings.get(key) != value}


def _check_frozen(new: Replacement, frozen: FrozenStages) -> None:
    """Raise a ``UserError`` unless a backbone can be frozen so, and has weights."""
    name = new.entry.name
    if frozen == -1:
        return
    if not new.weights:
        raise UserError(
            f'--frozen-stages {frozen}: no weights of {name} are known, so that random '
            'values would be kept: write --checkpoint FILE, or leave --frozen-stages '
            'out'
        )
    if isinstance(new.net, Backbone):
        last = len(new.net.built_stages()) - 1
        if frozen != ALL and not -1 <= frozen <= last:
            raise UserError(
                f'--frozen-stages {frozen}: {name} has the stem and the stages 1 to '
                f'{last}: write --frozen-stages {last}, or --frozen-stages {ALL} for '
                'the whole backbone'
            )
    elif frozen == ALL or 'frozen_stages' not in new.arguments:
        raise UserError(
            f"--frozen-stages {frozen}: {name} is one of mmdet's classes, which cannot "
            'be frozen so: take a net of another source, or leave --frozen-stages out'
        )


def _frozen_in(base: DetectorConfig) -> FrozenStages:
    # A class of ours has read what stands for it under other names, and in defaults.
    if base.backbone and isinstance(base.net, Backbone):
        return base.net.frozen_stages
    given = base.of_backbone('frozen_stages', -1)
    return given if isinstance(given, int) else -1


def _frozen(new: Replacement, stages: int) -> int:
    """As many stages as reach the stride that the base's frozen ones reach."""
    if stages < 1:
        return stages
    if not isinstance(new.net, Backbone):
        # mmdet's ResNets count alike, its other classes each in their own way.
        return stages if 'num_stages' in new.arguments else -1
    reached = 4 * 2 ** (stages - 1)
    every = new.net.levels
    count = sum(level.stride <= reached for level in every)
    # Without a stem of its own, stage 0 is the first level.
    return count if len(new.net.built_stages()) > len(every) else count - 1


def check_backbone(settings: Mapping[str, Any], channels: Sequence[int]) -> None:
    """Build the backbone on the meta device once more, as it will be written.

    Raises:
        UserError: If its class refuses the arguments, or gives other channels.
    """
    net = build_weightless({**settings, 'init_cfg': None})
    levels = getattr(net, 'levels', None) or probe_levels(net)
    found = [level.channels for level in levels if not level.is_image]
    assert found == list(channels), f'{settings} gives {found}, not {list(channels)}'


def idle_note(settings: Mapping[str, Any]) -> str | None:
    """Tell of parts of the backbone, as it will be written, that no level needs.

    Returns:
        What they are and what is written for them; None if there are none.
    """
    if str(settings['type']).startswith('mmdet_backbones.'):
        return None  # which builds none
    cfg = {k: v for k, v in settings.items() if k not in ('_delete_', 'init_cfg')}
    net = build_weightless(cfg, as_built=True)
    idle = idle_parameters(net, DETECTOR_PROBE_SIZE, settings.get('in_channels', 3))
    if not idle:
        return None
    parts = ', '.join(largest_parts(net, idle)[:4])
    return (
        f'{len(idle)} parameters of {settings["type"]} get no gradient, as none of the '
        f'levels depends on them ({parts}). find_unused_parameters = True lets several '
        'GPUs train all the same; without it they stop with "Expected to have finished '
        'reduction". A net of timm/ or torchvision/ builds only what its levels need.'
    )


def elsewhere(entry: Entry) -> list[str]:
    """Name the same net of other sources that have weights for it."""
    model = entry.name.rpartition('/')[2]
    found = []
    for source in ('timm', 'torchvision', 'mmpretrain', 'mmdet'):
        try:
            other = find(f'{source}/{model}')
        except UserError:
            continue
        if other.weights and other.name != entry.name:
            found.append(other.name)
    return found
