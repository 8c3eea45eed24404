"""Put another backbone into a detector: one command, one short config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..catalog.preprocessing import preprocess_settings
from ..check.config import check_config
from ..check.findings import describe, errors_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import Edits, class_edits, stride_edits
from ..detector_config.neck_rules import necks_of, rule_of
from ..detector_config.read import read_by_name
from ..detector_config.values import require_values
from ..errors import CheckpointError, UserError
from ..files import write_atomically
from ..levels import describe_levels
from ..own_data.for_config import DataFolder, data_settings, read_folder
from .level_plan import LevelPlan, plan_levels
from .options import SwapOptions, backbone_arguments, mistakes_in
from .replacement import (
    Replacement,
    backbone_settings,
    check_backbone,
    load_replacement,
)
from .widths import project_wide_levels
from .writing import compose, notes_in

__all__ = ['SwapOptions', 'notes_in', 'save', 'swap_backbone']
_T = TypeVar('_T')


def swap_backbone(options: SwapOptions) -> str:
    """Compose the config; nothing is written.

    A base that is wrong in itself is told as the check tells it.

    Args:
        options: What to swap.

    Returns:
        The text of a config that inherits from the base, or stands by itself if the
        base is in mmengine's new style.

    Raises:
        UserError: A ``ValueError`` that lists every mistake that could be seen.
    """
    try:
        return _swapped(options)
    except (UserError, CheckpointError):
        raise
    except Exception as error:
        wrong = errors_of(check_config(read_by_name(options.base), training=False))
        if not wrong:
            raise
        raise UserError(
            f"the config '{options.base}' is wrong itself:\n{describe(wrong)}"
        ) from error


def _swapped(options: SwapOptions) -> str:
    problems: list[str] = []
    base = _try(problems, lambda: _load(options.base))
    new = _try(problems, lambda: _find(options))
    folder = None
    if options.data is not None:
        data = options.data
        folder = _try(problems, lambda: read_folder(data))
    problems += mistakes_in(options, folder)
    if problems or base is None or new is None:
        raise _all(problems)
    plan = _try(
        problems,
        lambda: plan_levels(
            base, options.name, new.levels, options.strides, options.neck
        ),
    )
    if plan is not None and not options.keep_width:
        plan = project_wide_levels(base, plan, new.net)
    data_lines = {}
    if folder is not None:
        data_lines = _try(problems, lambda: data_settings(base.config, folder)) or {}
    edits = _try(problems, lambda: _edits(base, new, plan, options, folder))
    if problems or plan is None or edits is None:
        raise _all(problems)
    return compose(options, base, new, plan, edits, data_lines)


def save(options: SwapOptions) -> Path:
    """Compose the config and write it.

    Args:
        options: What to swap.

    Returns:
        The file that was written.

    Raises:
        UserError: As :func:`swap_backbone`.
    """
    write_atomically(options.out, swap_backbone(options))
    return options.out


def _load(name: str) -> DetectorConfig:
    """Read the config of a detector whose backbone can be replaced."""
    config = read_by_name(name)
    require_values(config)
    model = config.get('model')
    if not isinstance(model, Mapping) or not ({'backbone', 'neck'} & set(model)):
        inner = next((k for k in ('detector', 'module') if k in (model or {})), None)
        hint = f': swap the config that its model.{inner} comes from' if inner else ''
        raise UserError(f"'{name}' describes no detector with a backbone{hint}")
    base = DetectorConfig(config)
    base.reader  # noqa: B018 - raises
    if list(base.strides) != sorted(base.strides):
        raise UserError(
            f"the levels of the backbone of '{name}' are not shallow to deep: "
            f'{describe_levels(base.levels)}'
        )
    return base


def _find(options: SwapOptions) -> Replacement:
    """Look at the backbone that is asked for."""
    asked = backbone_arguments(options)
    return load_replacement(options.name, options.checkpoint, options.no_weights, asked)


def _try(problems: list[str], step: Callable[[], _T]) -> _T | None:
    """Take a step, or note why it cannot be taken."""
    try:
        return step()
    except UserError as error:
        problems.append(str(error))
        return None


def _all(problems: Sequence[str]) -> UserError:
    if len(problems) == 1:
        return UserError(problems[0])
    return UserError(
        f'{len(problems)} things are wrong:' + ''.join(f'\n  - {p}' for p in problems)
    )


def _edits(
    base: DetectorConfig,
    new: Replacement,
    plan: LevelPlan | None,
    options: SwapOptions,
    folder: DataFolder | None,
) -> Edits:
    edits: Edits = {}
    if new.preprocess is not None:
        for key, value in preprocess_settings(new.preprocess).items():
            edits[('data_preprocessor', key)] = value
    if plan is not None:
        edits.update(_padding(base, plan))
        settings = backbone_settings(new, plan, base, options.frozen_stages)
        check_backbone(settings, plan.channels)
        edits[('backbone',)] = dict(_delete_=True, **settings)
        edits.update(plan.edits)
        edits.update(stride_edits(base.model, base.output_strides, plan.outputs))
    count = len(folder.classes) if folder is not None else options.num_classes
    if count is not None:
        edits.update(class_edits(base.model, count))
    if base.model.get('init_cfg'):
        # It would load the whole detector of the base over the new backbone.
        edits[('init_cfg',)] = None
    return edits


def _padding(base: DetectorConfig, plan: LevelPlan) -> Edits:
    """Pad images so that every map is exactly twice as large as the next one."""
    necks = necks_of(base.model)
    if isinstance(plan.edits.get(base.reader.place), dict):
        # The pyramid that stands in for the first one takes maps of any size.
        necks = necks[1:]
    doubling = any(rule_of(neck).doubles for neck in necks)
    if not doubling or not all(s == int(s) for s in plan.neck_inputs):
        return {}
    deepest = int(plan.neck_inputs[-1])
    given = base.model.get('data_preprocessor') or {}
    edits: Edits = {}
    deeper = deepest > max(base.strides[-1], 1)
    # In steps of patches of 14 pixels nothing else divides.
    if deepest % 8 or (deeper and given.get('pad_size_divisor', 1) % deepest):
        edits[('data_preprocessor', 'pad_size_divisor')] = deepest
    for index, augment in enumerate(given.get('batch_augments') or []):
        if augment.get('size_divisor', deepest) % deepest:
            place = ('data_preprocessor', 'batch_augments', index, 'size_divisor')
            edits[place] = deepest
    return edits
