"""What a run shows while it goes on: a progress bar, and TensorBoard if it is there."""

from __future__ import annotations

import atexit
import logging
import sys
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..registry import HOOKS

_TENSORBOARD = 'TensorboardVisBackend'


def add_tensorboard(cfg: Config) -> None:
    """Log to TensorBoard too, if it is installed.

    Args:
        cfg: The whole config; its visualizer gets mmengine's backend.
    """
    if find_spec('tensorboard') is None:
        return
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    if not any(str(backend.get('type')).endswith(_TENSORBOARD) for backend in backends):
        cfg.visualizer = {
            **visualizer,
            'vis_backends': [*backends, dict(type=_TENSORBOARD)],
        }


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Show a bar with the time that is left, on a terminal only.

    On a terminal it stands for the lines that mmengine logs every few iterations; the
    log file has them as ever, and so has an output that is no terminal. The time left
    is that of the iterations, without validation. The commands ``train``
    and ``test`` add this hook by themselves.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_run(self, runner: Runner) -> None:
        """Start to draw, in the main process, if there is a terminal."""
        console = Console()
        # Jupyter asks for colours, which rich takes for a terminal.
        terminal = console.is_interactive and sys.stdout.isatty()
        if not terminal or not is_main_process():
            return
        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            expand=True,
            # Validations stop the training for longer than rich looks back otherwise.
            speed_estimate_period=600,
        )
        self._progress.start()
        # A run that fails ends without after_run, and would leave no cursor.
        atexit.register(self._stop)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                self._streams.append((handler, handler.stream))
                # rich has put a stream in its place that writes above the bar.
                handler.setStream(sys.stdout)
                handler.addFilter(_not_told_by_the_bar)

    def before_train(self, runner: Runner) -> None:
        """Add the bar of the training."""
        self._add('train', 'train', runner.max_iters, runner.iter)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """Move the bar of the training, a validation or a test."""
        if self._progress is None:
            return
        if mode != 'train':
            self._progress.update(self._tasks[mode], completed=batch_idx + 1)
            return
        text = mode
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            text = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        if 'train/loss' in runner.message_hub.log_scalars:
            loss = runner.message_hub.get_scalar('train/loss').mean(50)
            text += f', loss {loss:.3f}'
        self._progress.update(
            self._tasks[mode], completed=runner.iter + 1, description=text
        )

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Add the bar of a validation or a test."""
        if mode != 'train':
            loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
            self._add(mode, 'validation' if mode == 'val' else mode, len(loader))

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Take the bar of a validation away."""
        if self._progress is not None and mode == 'val':
            self._progress.remove_task(self._tasks.pop(mode))

    def after_run(self, runner: Runner) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _add(self, kind: str, text: str, total: int, done: int = 0) -> None:
        if self._progress is not None:
            self._tasks[kind] = self._progress.add_task(
                text, total=total, completed=done
            )

    def _stop(self) -> None:
        if self._progress is None:
            return
        self._progress.stop()
        self._progress = None
        atexit.unregister(self._stop)
        for handler, stream in self._streams:
            handler.setStream(stream)
            handler.removeFilter(_not_told_by_the_bar)
        self._streams = []


def _not_told_by_the_bar(record: logging.LogRecord) -> bool:
    """Leave out what mmengine's LoggerHook says after iterations."""
    iteration = record.funcName in (
        'after_train_iter',
        'after_val_iter',
        'after_test_iter',
    )
    return not (record.module == 'logger_hook' and iteration)
