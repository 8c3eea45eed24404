"""The scalars that mmengine logged in one work directory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATTERN = '*/vis_data/scalars.json'
# mmdet's evaluators name their average precision in these ways.
_METRICS = (
    'coco/bbox_mAP',
    'lvis/bbox_AP',
    'pascal_voc/mAP',
    'coco/segm_mAP',
    'lvis/segm_AP',
)


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        step: Epoch after which it ran, or iteration where these are counted; 0 from
            mmengine in the first round of a training by iterations.
        iteration: The last one that was logged before it.
        metrics: By name, as they were logged.
    """

    step: int
    iteration: int
    metrics: Mapping[str, float]


@dataclass
class Log:
    """A training as it was logged, over all of its resumed parts.

    Attributes:
        validations: In the order of the training.
        iterations: The last one that was logged.
        epoch: The last one in which an iteration was logged; None if the training
            does not count epochs.
        seconds: Of all logged iterations: without validation, start and checkpoints.
        memory: Largest memory of the accelerator, in MB; None if none was used.
        files: The logs, oldest first.
        untrained: Number of validations that ran without a training.
        empty: Number of validations without any metric: mmdet gives none if the
            detector finds nothing at all.
        steps: What was logged of the training itself, in its order.
    """

    validations: list[Validation] = field(default_factory=list)
    iterations: int = 0
    epoch: int | None = None
    seconds: float = 0.0
    memory: float | None = None
    files: list[Path] = field(default_factory=list)
    untrained: int = 0
    empty: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)

    def metric(self, wanted: str | None = None) -> str | None:
        """Choose the metric to compare: the wanted one, or the usual one of mmdet.

        Returns:
            Its name; None if no validation has it.
        """
        names = {name: None for v in self.validations for name in v.metrics}
        if wanted is not None:
            return wanted if wanted in names else None
        return usual_metric(names)

    @property
    def unit(self) -> str:
        """What the training counts, as far as the log shows it."""
        by_epoch = self.epoch is not None and all(v.step for v in self.validations)
        return 'epoch' if by_epoch or not self.iterations else 'iteration'

    def series(self, metric: str, unit: str) -> list[tuple[int, float]]:
        """Give epoch or iteration, and value, of every validation with a metric."""
        # In a training by iterations the step may still be that of a round.
        return [
            (v.step if unit == 'epoch' else max(v.step, v.iteration), v.metrics[metric])
            for v in self.validations
            if metric in v.metrics and math.isfinite(v.metrics[metric])
        ]


def usual_metric(names: Iterable[str]) -> str | None:
    """Choose the AP that mmdet's users compare.

    Args:
        names: Of the metrics of a validation.

    Returns:
        The name; None if there is no AP among them.
    """
    names = list(names)
    usual = [name for name in _METRICS if name in names]
    other = [name for name in names if 'AP' in name.rpartition('/')[2]]
    return next(iter(usual + other), None)


def read_log(work_dir: Path) -> Log:
    """Join the logs of all runs in a work directory, oldest first.

    A run that was resumed counts from where it began: what an earlier run logged
    beyond that point is no part of the model at the end.

    Args:
        work_dir: Folder with a folder per run, as mmengine makes them.

    Returns:
        The joint log; an empty one if there is none.
    """
    log = Log()
    steps: list[dict[str, Any]] = []
    for path in sorted(work_dir.glob(_PATTERN)):
        log.files.append(path)
        entries = _read_lines(path)
        trained = [entry for entry in entries if 'loss' in entry]
        validated = _validations(entries)
        if not trained:
            log.untrained += len(validated)
            continue
        first = trained[0]
        steps = [entry for entry in steps if entry['step'] < first['step']]
        steps += trained
        epoch = first.get('epoch', float('inf'))
        log.validations = [
            v for v in log.validations if v.iteration < first['step'] and v.step < epoch
        ]
        log.validations += validated
        # LoggerHook adds the time to whatever a validation gave.
        timed = [e for e in entries if 'loss' not in e and 'time' in e]
        log.empty += len(timed) - len(_validations(timed))
    _add_steps(log, steps)
    return log


def _add_steps(log: Log, steps: list[dict[str, Any]]) -> None:
    before = 0
    for entry in steps:
        # The time is a mean over the last iterations.
        log.seconds += (entry['step'] - before) * entry.get('time', 0.0)
        before = entry['step']
        if entry.get('memory'):
            log.memory = max(log.memory or 0.0, float(entry['memory']))
    log.steps = steps
    if steps:
        log.iterations = steps[-1]['step']
        log.epoch = steps[-1].get('epoch')


def _validations(entries: list[dict[str, Any]]) -> list[Validation]:
    found = []
    iteration = 0
    for entry in entries:
        if 'loss' in entry:
            iteration = entry['step']
            continue
        metrics = {
            name: float(value)
            for name, value in entry.items()
            if '/' in name and isinstance(value, (int, float))
        }
        if metrics:
            found.append(Validation(entry['step'], iteration, metrics))
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    entries = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # a run that was killed may leave half a line
            continue
        if isinstance(entry, dict) and isinstance(entry.get('step'), int):
            entries.append(entry)
    return entries
