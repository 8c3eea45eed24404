"""What a training came to, told once at its end."""

from __future__ import annotations

from pathlib import Path

from ..files import write_atomically
from .comparing import duration
from .examples import BestAndWorstHook
from .logs import read_log
from .plots import plot_training
from .records import Run, read_run

PICTURE = 'training.png'


def summarise(work_dir: Path, config: str) -> str:
    """Draw the curves of a training that has ended, and say what it reached.

    Writes ``training.png`` into the work directory: loss, learning rate and AP.

    Args:
        work_dir: Of the Runner.
        config: As the user named it, for the next command.

    Returns:
        A few lines for the log.
    """
    run = read_run(work_dir, with_costs=False)
    log = read_log(work_dir)
    what = f'{run.detector} with {run.backbone}' if run.detector else run.name
    lines = [f'{what}: {_reached(run)}']
    used = f'{duration(run.seconds)} of training, without validation'
    if run.memory:
        used += f', at most {run.memory:.0f} MB of GPU memory'
    lines.append(used)
    if log.steps:
        write_atomically(work_dir / PICTURE, plot_training(log, run.metric))
        lines.append(f'loss, learning rate and AP: {work_dir / PICTURE}')
    examples = work_dir / BestAndWorstHook.file_name
    if examples.is_file():
        lines.append(f'detections of the best and the worst images: {examples}')
    if run.checkpoint is not None:
        lines.append(f'next: python tools/test.py {config} {run.checkpoint}')
    return '\n  '.join(lines)


def _reached(run: Run) -> str:
    if run.best is None or run.last is None:
        return run.problem
    step, value = run.best
    text = f'best {run.metric} {value:.3f} after {run.unit} {step}'
    planned = f' of {run.planned}' if run.planned else ''
    return f'{text}{planned}, {run.last[1]:.3f} at the end'
