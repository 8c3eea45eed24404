"""A training whose numbers are no numbers any more is stopped before it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner

from ..commands import command
from ..errors import UserError
from ..registry import HOOKS

# A dynamic loss scale is halved for each of them; from 2**16 it is below 1 after 17.
_SKIPPED_STEPS = 30


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Stop a training whose losses or parameters are NaN or infinite.

    It stands in front of the hooks that write checkpoints and validate, so that none
    of such parameters takes the place of a good one. All processes stop in the same
    iteration. Mixed precision skips a step whose gradients overflow and lowers its
    loss scale, so that there only a row of such steps counts.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Look at the losses, and at the parameters where they are about to be kept."""
        bad = {
            name: number
            for name, value in (outputs or {}).items()
            if not math.isfinite(number := _number(value))
        }
        self._row = self._row + 1 if _in_any_process(bool(bad)) else 0
        scaled = isinstance(runner.optim_wrapper, AmpOptimWrapper)
        if self._row >= (_SKIPPED_STEPS if scaled else 1):
            # Their sum says nothing more.
            parts = {n: v for n, v in bad.items() if n != 'loss'} or bad
            told = ', '.join(f'{name} is {number}' for name, number in parts.items())
            self._stop(runner, told or 'a loss of another process is not finite')
        if _keeps_now(runner):
            self._look_at_parameters(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the parameters, which may be kept now."""
        self._look_at_parameters(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Look at the parameters, which may be kept as the best ones."""
        if runner.optim_wrapper is not None:
            self._look_at_parameters(runner)

    def _look_at_parameters(self, runner: Runner) -> None:
        lost = unfinite_parameters(runner)
        if _in_any_process(bool(lost)):
            names = ', '.join(lost[:3]) or 'those of another process'
            self._stop(runner, f'{len(lost)} parameters are not finite ({names})')

    @staticmethod
    def _stop(runner: Runner, what: str) -> None:
        raise UserError(tell_divergence(runner, what))


def unfinite_parameters(runner: Runner, bound: float = math.inf) -> list[str]:
    """Name the parameters that hold NaN, or values that are not below a bound."""
    return [
        name.removeprefix('module.')
        for name, parameter in runner.model.named_parameters()
        if not (parameter.detach().abs() < bound).all()
    ]


def tell_divergence(runner: Runner, what: str) -> str:
    """Say that a training has diverged, and what to write.

    Args:
        runner: Of the training.
        what: Which numbers are none.
    """
    rates = [rate for rates in _rates(runner).values() for rate in rates]
    rate = max(rates, default=0.0)
    wrapper = runner.cfg.get('optim_wrapper') or {}
    given = (wrapper.get('optimizer') or {}).get('lr', rate)
    return (
        f'the training has diverged: {what} in iteration {runner.iter + 1} (epoch '
        f'{runner.epoch + 1}), at a learning rate of {rate:g}. No such parameters were '
        'saved. Write one or more of\n'
        f'  optim_wrapper.optimizer.lr = {given / 10:g}, or less, for {given:g}\n'
        "  optim_wrapper.clip_grad = {'max_norm': 35, 'norm_type': 2}\n"
        '  a longer warm-up: a LinearLR in param_scheduler, with end=1000\n'
        f'and look at the boxes: {command("data")} tells which have no area or lie '
        'outside of their image'
    )


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor):
        # Their sum tells whether all are finite.
        return float(value.detach().float().sum())
    return float(value) if isinstance(value, (int, float)) else 0.0


def _rates(runner: Runner) -> dict[str, list[float]]:
    rates = runner.optim_wrapper.get_lr()
    # Several optimisers have rates by name each.
    return {name: [*value] for name, value in rates.items() if 'momentum' not in name}


def _in_any_process(here: bool) -> bool:
    if dist.get_world_size() == 1:
        return here
    flag = torch.tensor(float(here), device=dist.get_comm_device())
    dist.all_reduce(flag, 'max')
    return bool(flag)


def _keeps_now(runner: Runner) -> bool:
    """Whether a checkpoint is going to be written after this iteration."""
    return any(
        not hook.by_epoch
        and (
            hook.every_n_train_iters(runner, hook.interval)
            or (hook.save_last and hook.is_last_train_iter(runner))
        )
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook)
    )
