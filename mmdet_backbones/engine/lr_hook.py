"""Tell how the learning rate was scaled, and keep to it in a resumed run."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .lr_scaling import ABSOLUTE, Scale

_RATES_OF_GROUPS = ('lr', 'initial_lr', 'max_lr', 'min_lr')
_RATES_OF_SCHEDULERS = ('base_values', '_last_value', 'min_values')


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
        _scale_optimizer(checkpoint['optimizer'], factor)
        for state in _states(checkpoint.get('param_schedulers')):
            _scale_scheduler(state, factor)
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
    if not isinstance(text, str):
        return None
    settings = Config.fromstring(text, file_format='.py').get('auto_scale_lr') or {}
    return settings.get('base_batch_size')


def _scale_optimizer(state: Any, factor: float) -> None:
    if not isinstance(state, dict):
        return
    if 'param_groups' not in state:  # one state by name for each of several optimisers
        for inner in state.values():
            _scale_optimizer(inner, factor)
        return
    for group in state['param_groups']:
        for key in _RATES_OF_GROUPS:
            if key in group:
                group[key] = group[key] * factor


def _states(states: Any) -> list[dict]:
    if isinstance(states, dict):
        return [state for inner in states.values() for state in _states(inner)]
    return list(states or [])


def _scale_scheduler(state: dict, factor: float) -> None:
    if state.get('param_name') != 'lr':
        return
    for key in _RATES_OF_SCHEDULERS:
        if key in state:
            state[key] = [value * factor for value in state[key]]
    for key in ABSOLUTE:
        if isinstance(state.get(key), (int, float)):
            state[key] = state[key] * factor
