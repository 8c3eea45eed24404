"""Keeps a search's file up to date while its trials run on Ray."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback

from .state import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WAITING,
    Clock,
    SearchState,
    Shows,
    TrialRecord,
)
from .trial_config import TrialSpec

# Seconds between notes of the time that is spent.
_PACE = 10.0


class Watch(Callback):
    """Writes down what Ray tells of trials.

    Args:
        state: Of the search.
        epochs: Of a whole training.
        clock: Counts what is spent.
        show: Shows the state.
    """

    def __init__(
        self, state: SearchState, epochs: int, clock: Clock, show: Shows
    ) -> None:
        self.state = state
        self.epochs = epochs
        self.clock = clock
        self.show = show
        self._noted = time.monotonic()
        self._started: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[Callback], tuple[()]]:
        # Ray keeps a copy of what it is given; that one watches nothing.
        return Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Note the time now and then, for a search that is killed."""
        if time.monotonic() - self._noted > _PACE:
            self._noted = time.monotonic()
            self._keep('')

    def on_trial_start(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Begin a record, or go on with it."""
        record = self._record(trial)
        record.status = RUNNING
        self._started[record.spec.name] = time.monotonic()
        self._keep(f'{record.spec.name}: started')

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict, **info: Any
    ) -> None:
        """Note epoch and AP."""
        record = self._record(trial)
        if result.get('node') not in (None, *record.nodes):
            record.nodes.append(result['node'])
        if result.get('error'):
            record.error = str(result['error'])
        else:
            record.series[result['epoch']] = result['ap']
        self._count(record)
        self._keep(
            f'{record.spec.name}: epoch {result["epoch"]:g}, AP {result["ap"]:.3f}'
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Note why it ended."""
        record = self._record(trial)
        self._count(record)
        if record.error:
            record.status = FAILED
        elif record.epoch >= self.epochs:
            record.status = FINISHED
        else:
            record.status = STOPPED if self.clock.left() > 0 else WAITING
        self._keep(f'{record.spec.name}: {record.status}')

    def on_trial_error(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Note that its process died, as often as it was started."""
        record = self._record(trial)
        self._count(record)
        lines = str(trial.get_error() or 'its process died').strip().splitlines()
        record.status, record.error = FAILED, lines[-1]
        self._keep(f'{record.spec.name}: failed')

    def close(self) -> None:
        """Note that nothing runs any more."""
        for record in self.state.trials.values():
            if record.status == RUNNING:
                self._count(record)
                record.status = WAITING
        self._keep('')

    def _record(self, trial: Any) -> TrialRecord:
        spec = TrialSpec.from_choice(trial.config)
        return self.state.trials.setdefault(spec.name, TrialRecord(spec))

    def _count(self, record: TrialRecord) -> None:
        now = time.monotonic()
        record.seconds += now - self._started.get(record.spec.name, now)
        self._started[record.spec.name] = now

    def _keep(self, happened: str) -> None:
        self.clock.note()
        self.state.write()
        self.show(self.state, happened)
