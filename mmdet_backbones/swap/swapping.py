"""Put another backbone into a detector: one command, one short config."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from mmengine.config import Config

from ..catalog.preprocessing import preprocess_settings
from ..check.config import check_config
from ..check.findings import describe, errors_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import Edits, class_edits, stride_edits
from ..detector_config.neck_rules import necks_of, rule_of
from ..detector_config.new_style import is_new_style
from ..detector_config.read import read_by_name
from ..detector_config.text import assignment, comment, nested
from ..detector_config.tree import plain
from ..detector_config.values import require_values
from ..engine.recipes import (
    choose_recipe,
    is_adaptive,
    optimiser_settings,
    short_warm_up,
    traits,
)
from ..errors import CheckpointError, UserError
from ..files import target_problem, write_atomically
from ..levels import describe_levels
from ..own_data.for_config import DataFolder, data_settings, read_folder
from ..weights import locate_checkpoint
from .level_plan import LevelPlan, plan_levels
from .replacement import (
    Replacement,
    backbone_settings,
    check_backbone,
    has_idle_parameters,
    load_replacement,
)

_T = TypeVar('_T')


@dataclass(frozen=True)
class SwapOptions:
    """What to swap.

    Attributes:
        base: Path of a detector's config, or ``mmdet::folder/name.py``.
        name: Of a backbone of the catalog.
        out: File of the new config.
        strides: Of the levels to use; those of the base if left out.
        checkpoint: Weights of the backbone; the usual ones if left out.
        data: Folder of a data set in COCO's format or Pascal VOC's.
        num_classes: Of the heads; as many as the data has if left out.
        force: Whether ``out`` may be replaced.
    """

    base: str
    name: str
    out: Path
    strides: tuple[int, ...] | None = None
    checkpoint: str | None = None
    data: str | None = None
    num_classes: int | None = None
    force: bool = False


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
    new = _try(problems, lambda: load_replacement(options.name, options.checkpoint))
    folder = None
    if options.data is not None:
        data = options.data
        folder = _try(problems, lambda: read_folder(data))
    problems += _mistakes(options, folder)
    if problems or base is None or new is None:
        raise _all(problems)
    plan = _try(
        problems, lambda: plan_levels(base, options.name, new.levels, options.strides)
    )
    data_lines = {}
    if folder is not None:
        data_lines = _try(problems, lambda: data_settings(base.config, folder)) or {}
    edits = _try(problems, lambda: _edits(base, new, plan, options, folder))
    if problems or plan is None or edits is None:
        raise _all(problems)
    return _compose(options, base, new, plan, edits, folder, data_lines)


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


def _mistakes(options: SwapOptions, folder: DataFolder | None) -> list[str]:
    target = target_problem(options.out, ('.py',), options.force)
    problems = [target] if target else []
    if not options.base.isprintable():
        # It stands in the new config, and in a comment of it.
        problems.append(f'a config without control characters, got {options.base!r}')
    count = options.num_classes
    if count is not None and count < 1:
        problems.append(f'--num-classes must be a positive integer, got {count}')
    if folder is not None and count is not None and count != len(folder.classes):
        problems.append(
            f"--num-classes {count}: '{folder.root}' has {len(folder.classes)} classes "
            f'({", ".join(folder.classes[:5])}...): leave --num-classes out'
        )
    if options.checkpoint is not None:
        try:
            locate_checkpoint(options.checkpoint)
        except CheckpointError as error:
            problems.append(f'--checkpoint: {error}')
    return problems


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
        settings = backbone_settings(new, plan.strides, base)
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


def _compose(
    options: SwapOptions,
    base: DetectorConfig,
    new: Replacement,
    plan: LevelPlan,
    edits: Edits,
    folder: DataFolder | None,
    data_lines: Mapping[str, Any],
) -> str:
    training, recipe = _training(base, new, folder)
    imports = list((base.config.get('custom_imports') or {}).get('imports', ()))
    if 'mmdet_backbones' not in imports:
        imports.append('mmdet_backbones')
    statements = {
        'custom_imports': dict(imports=imports, allow_failed_imports=False),
        'model': nested(plain(base.model), edits),
        **data_lines,
        **training,
    }
    if base.config.get('load_from'):
        statements['load_from'] = None
    if has_idle_parameters(edits[('backbone',)]):
        # Of a class that builds stages which none of the levels needs.
        statements['find_unused_parameters'] = True
    lines = _header(options, new, plan, recipe)
    own = [assignment(name, value) for name, value in statements.items()]
    if is_new_style(base.config):
        return '\n'.join([*lines, _by_itself(base.config, own)])
    inherited = options.base
    if '::' not in inherited:
        inherited = os.path.relpath(inherited, options.out.parent)
    return '\n'.join([*lines, assignment('_base_', inherited), *own]) + '\n'


def _by_itself(base: Config, own: Sequence[str]) -> str:
    """A config without a base, as of one in the new style no other can inherit."""
    with TemporaryDirectory() as folder:
        Path(folder, 'base.py').write_text(base.pretty_text, encoding='utf-8')
        path = Path(folder, 'new.py')
        text = '\n'.join([assignment('_base_', 'base.py'), *own])
        path.write_text(text, encoding='utf-8')
        return Config.fromfile(path, import_custom_modules=False).pretty_text


def _training(
    base: DetectorConfig, new: Replacement, folder: DataFolder | None
) -> tuple[dict[str, Any], str]:
    """Optimiser, schedule and scaling of the rate; and a sentence on the recipe."""
    strides = [level.stride for level in new.levels]
    net = traits(new.net, new.entry.name, new.entry.source, new.weights, strides)
    recipe = choose_recipe(net)
    settings, sentence = optimiser_settings(
        base.config, recipe, net.groups, new.weights is not None
    )
    if folder is not None:
        given = settings.get('param_scheduler', base.config.get('param_scheduler'))
        short = short_warm_up(base.config, given, folder.train_images)
        if short is not None:
            settings['param_scheduler'] = short
    scaling = base.config.get('auto_scale_lr') or {}
    if scaling.get('base_batch_size') and not scaling.get('enable'):
        # The rate of the recipe is that of the batch that is named there.
        settings['auto_scale_lr'] = dict(enable=True)
        wrapper = settings.get('optim_wrapper') or {}
        if is_adaptive(wrapper) or is_adaptive(base.config.get('optim_wrapper') or {}):
            # A small batch with a proportional rate hardly learns under Adam.
            settings['auto_scale_lr']['rule'] = scaling.get('rule', 'sqrt')
    return settings, f'Recipe ({recipe.family}): {sentence}'


def _header(
    options: SwapOptions, new: Replacement, plan: LevelPlan, recipe: str
) -> list[str]:
    levels = [level for level in new.levels if level.stride in plan.strides]
    by_stride = {level.stride: level for level in levels}
    lines = comment(
        f'{options.name} in the detector of {options.base}, written by '
        'tools/swap_backbone.py; not trained. Train it:'
    )
    lines += [f'#   python tools/train.py {shlex.quote(str(options.out))}']
    lines += comment(f'Levels: {describe_levels(by_stride.values())}.')
    for note in plan.notes:
        lines += comment(note)
    if new.weights is None:
        lines += comment(
            'There are no known weights of this net: training starts from RANDOM '
            'weights. If you have some, write init_cfg or swap again with --checkpoint.'
        )
    if new.preprocess is None:
        lines += comment(
            'What its weights expect of an image is unknown: mean, standard deviation '
            'and channel order are those of the base.'
        )
    return [*lines, *comment(recipe)]
