"""The text of the swapped config: what differs from its base, and why."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config

from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import Edits
from ..detector_config.new_style import is_new_style
from ..detector_config.text import Code, assignment, comment, nested
from ..detector_config.tree import plain
from ..levels import describe_levels
from .level_plan import LevelPlan
from .options import SwapOptions
from .replacement import Replacement, elsewhere, idle_note
from .training import adjust, choose, recipe_settings


def compose(
    options: SwapOptions,
    base: DetectorConfig,
    new: Replacement,
    plan: LevelPlan,
    edits: Edits,
    data_lines: Mapping[str, Any],
) -> str:
    """Write the config.

    Args:
        options: What to swap.
        base: The detector.
        new: The backbone.
        plan: Its levels.
        edits: Values by place below ``model``.
        data_lines: Top-level names and values for data of its own.

    Raises:
        UserError: If something that is asked for cannot be had.
    """
    chosen = choose(options, new)
    training, recipe = recipe_settings(base, chosen)
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
    idle = idle_note(edits[('backbone',)])
    if idle is not None:
        statements['find_unused_parameters'] = True
    whole = _read(options, base, statements)
    before = plain(whole.to_dict())
    card = adjust(whole, options, chosen, recipe)
    notes = [*plan.notes, *([idle] if idle else []), *card]
    statements = _merged(statements, _changes(before, plain(whole.to_dict())))
    lines = _header(options, new, plan, notes)
    if is_new_style(base.config):
        return '\n'.join([*lines, _read(options, base, statements).pretty_text])
    inherited = options.base
    if '::' not in inherited:
        inherited = os.path.relpath(inherited, options.out.parent)
    return '\n'.join([*lines, *_written(inherited, statements)]) + '\n'


def _written(inherited: str, statements: Mapping[str, Any]) -> Iterator[str]:
    yield assignment('_base_', inherited)
    yield from (assignment(name, value) for name, value in statements.items())


def _read(
    options: SwapOptions, base: DetectorConfig, statements: Mapping[str, Any]
) -> Config:
    """Read statements on top of the base, as mmengine will."""
    inherited = options.base if '::' in options.base else os.path.abspath(options.base)
    with TemporaryDirectory() as folder:
        if is_new_style(base.config):
            # From one in the new style no other can inherit.
            text, inherited = base.config.pretty_text, 'base.py'
            Path(folder, inherited).write_text(text, encoding='utf-8')
        path = Path(folder, 'new.py')
        path.write_text('\n'.join(_written(inherited, statements)), encoding='utf-8')
        return Config.fromfile(path, import_custom_modules=False)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What to merge into one config to get the other; lists are whole, and so is what
    lost a key."""
    found: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if set(old) - set(value):
                found[key] = dict(_delete_=True, **value)
                continue
            inner = _changes(old, value)
            if inner:
                found[key] = inner
        elif key not in before or value != old:
            found[key] = value
    return found


def _merged(
    statements: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Statements with changes of what they say."""
    found = dict(statements)
    for key, value in changes.items():
        old = found.get(key)
        assert not isinstance(value, dict) or not isinstance(old, Code), key
        both = isinstance(old, dict) and isinstance(value, dict)
        both = both and '_delete_' not in value
        found[key] = _merged(old or {}, value) if both else value
    return found


def _header(
    options: SwapOptions, new: Replacement, plan: LevelPlan, notes: Sequence[str]
) -> list[str]:
    levels = [level for level in new.levels if level.stride in plan.strides]
    by_stride = {level.stride: level for level in levels}
    lines = comment(
        f'{options.name} in the detector of {options.base}, written by '
        # The same text wherever it was written.
        'mmdet-backbones swap; not trained. Train it:'
    )
    lines += [f'#   mmdet-backbones train {shlex.quote(str(options.out))}']
    lines += comment(f'Levels: {describe_levels(by_stride.values())}.')
    if new.asked:
        asked = ', '.join(f'{name}={value!r}' for name, value in new.asked.items())
        lines += comment(f'Backbone: {asked} (--backbone-option).')
    if new.weights is None:
        lines += comment(_random(options, new))
    if new.preprocess is None:
        lines += comment(
            'What its weights expect of an image is unknown: mean, standard deviation '
            'and channel order are those of the base.'
        )
    for note in notes:
        lines += comment(note)
    return lines


def _random(options: SwapOptions, new: Replacement) -> str:
    if options.no_weights:
        cause = 'Training starts from RANDOM weights, as asked for (--no-weights). '
        known = new.entry.weights
    else:
        cause = (
            'There are no known weights of this net: training starts from RANDOM '
            'weights. '
        )
        known = None
    checkpoint = repr(known or 'FILE.pth')
    cure = (
        'If you have some, write '
        if known is None
        else 'The published ones are loaded by '
    )
    cure += f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint={checkpoint})"
    if known is None:
        cure += ' or swap again with --checkpoint'
        names = elsewhere(new.entry)
        if names:
            cure += f'; the same net with weights is {" and ".join(names)}'
    return f'{cause}{cure}.'


def notes_in(text: str) -> str:
    """What the comments of a written config tell of levels, weights and training."""
    comments = itertools.takewhile(lambda line: line.startswith('#'), text.split('\n'))
    # The first ones are of how it was written, up to the command to train it.
    rest = itertools.dropwhile(lambda line: not line.startswith('#   '), comments)
    return '\n'.join(line[2:] for line in list(rest)[1:])
