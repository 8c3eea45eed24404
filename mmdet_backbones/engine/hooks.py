"""Hooks that tell what a training starts from: its weights and its rates."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from ..backbones.contract import Backbone
from ..detector_config.tree import walk
from ..files import write_atomically
from ..registry import HOOKS
from .lr_scaling import ABSOLUTE, Scale

_LONGEST_CONFIG = 1_000_000
_RATES_OF_GROUPS = ('lr', 'initial_lr', 'max_lr', 'min_lr')
_RATES_OF_SCHEDULERS = ('base_values', '_last_value', 'min_values', *ABSOLUTE)


@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Write what was loaded into the backbones, and load nothing for a resumed run.

    ``work_dir/pretrained_report.json`` has one entry by name of module for each
    backbone that loaded pretrained weights in this run. A run that goes on from a
    checkpoint gets all its weights from there, so its backbones read no others, and
    the report of the first start stays. Use it as
    ``custom_hooks = [dict(type='mmdet_backbones.PretrainedReportHook')]``.
    """

    priority = 'VERY_HIGH'
    file_name = 'pretrained_report.json'

    def before_run(self, runner: Runner) -> None:
        """Tell backbones to read nothing if a checkpoint is going to be resumed."""
        if runner._resume and (
            runner._load_from or find_latest_checkpoint(runner.work_dir)
        ):
            for backbone in _backbones(runner).values():
                backbone.reads_weights = False

    def before_train(self, runner: Runner) -> None:
        """Write the report, in one step, from the main process."""
        reports = {
            name: backbone.load_report.to_dict()
            for name, backbone in _backbones(runner).items()
            if backbone.load_report is not None
        }
        if not reports or not is_main_process():
            return
        content = json.dumps(reports, indent=1) + '\n'
        write_atomically(Path(runner.work_dir) / self.file_name, content)


def _backbones(runner: Runner) -> dict[str, Backbone]:
    return {
        name.removeprefix('module.'): module
        for name, module in runner.model.named_modules()
        if isinstance(module, Backbone)
    }


@HOOKS.register_module()
class LearningRateScaleHook(Hook):
    """Log the scaling, and adapt a checkpoint of another batch size to it.

    A checkpoint keeps the rates of the run that wrote it. Where that run had another
    number of processes, they are scaled by the quotient of the two batch sizes.

    Args:
        batch_size: Images per step of the optimiser that the rates are scaled to.
        rule: ``'linear'`` or ``'sqrt'``.
        note: What to log before the training.
    """

    priority = 'VERY_HIGH'

    def __init__(self, batch_size: int, rule: str = 'linear', note: str = '') -> None:
        self.batch_size = batch_size
        self.rule = rule
        self.note = note

    def before_train(self, runner: Runner) -> None:
        """Log the formula with its numbers."""
        if self.note:
            runner.logger.info(self.note)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Scale the rates that a checkpoint of a run carries."""
        if 'optimizer' not in checkpoint:
            return
        before = _batch_size_of(checkpoint)
        if before is None or before == self.batch_size:
            return
        factor = Scale(before, 1, self.batch_size, rule=self.rule).factor
        # Several optimisers have a state by name each, and schedulers a list by name.
        for _, state in walk(checkpoint['optimizer']):
            if 'params' in state:
                _multiply(state, _RATES_OF_GROUPS, factor)
        for _, state in walk(checkpoint.get('param_schedulers')):
            if state.get('param_name') == 'lr':
                _multiply(state, _RATES_OF_SCHEDULERS, factor)
        runner.logger.log(
            logging.WARNING,
            'The checkpoint is of a run with %d images per step, this one has %d: its '
            'learning rates are multiplied by %g',
            before,
            self.batch_size,
            factor,
        )


def _batch_size_of(checkpoint: dict) -> int | None:
    text = checkpoint.get('meta', {}).get('cfg')
    if not isinstance(text, str) or len(text) > _LONGEST_CONFIG:
        return None
    # Read, never run: a config is a program, and this one comes out of a file.
    try:
        lines = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for line in lines:
        names = line.targets if isinstance(line, ast.Assign) else []
        if any(isinstance(n, ast.Name) and n.id == 'auto_scale_lr' for n in names):
            given = {
                k.arg: k.value for k in ast.walk(line) if isinstance(k, ast.keyword)
            }
            size = getattr(given.get('base_batch_size'), 'value', None)
            return size if type(size) is int and size > 0 else None
    return None


def _multiply(state: dict[str, Any], keys: tuple[str, ...], factor: float) -> None:
    for key in keys:
        value = state.get(key)
        if isinstance(value, list):
            state[key] = [item * factor for item in value]
        elif value is not None:
            state[key] = value * factor
