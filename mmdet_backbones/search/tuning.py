"""Trials on Ray: Optuna's sampler chooses them, successive halving ends the worse."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from ..catalog.entries import find
from .options import SearchOptions
from .state import FAILED, Clock, SearchState, Shows, TrialRecord
from .training import TrialOrder, train_trial
from .trial_config import FACTORS, FREEZING, TrialSpec, can_freeze

#: Of the trials that reach a rung, one in so many goes on (arXiv 1810.05934).
REDUCTION = 3
# How often a trial is started again whose process or machine died.
_STARTS = 3
_METRIC, _TIME = 'ap', 'epoch'
# Without it Ctrl-C would not end the search as it ends any command.
_NO_HANDLER = 'TUNE_DISABLE_SIGINT_HANDLER'


def tune_trials(
    state: SearchState,
    options: SearchOptions,
    order: TrialOrder,
    most: int,
    clock: Clock,
    show: Shows,
) -> None:
    """Train trials until there are enough, or the time is over.

    What Ray itself notes of an experiment is not read again: the work folders of the
    trials and ``search.json`` are what a search goes on from.

    Args:
        state: Of the search, kept up to date.
        options: Of the search.
        order: Of the trials.
        most: Trials of all runs together.
        clock: Says how much time is left.
        show: Shows the state.
    """
    os.environ[_NO_HANDLER] = '1'
    import ray
    from ray import tune

    from .watching import Watch

    # What fails is a row of the table.
    logging.getLogger('ray.tune').setLevel(logging.CRITICAL)
    ended = [record for record in state.trials.values() if record.ended]
    gpus = 1 if ray.cluster_resources().get('GPU') else 0
    trainable = tune.with_resources(
        tune.with_parameters(_run, order=asdict(order), folder=os.getcwd()),
        dict(cpu=options.cpus_per_trial, gpu=gpus),
    )
    notes = options.out.resolve() / 'ray'
    shutil.rmtree(notes, ignore_errors=True)
    watch = Watch(state, options.epochs, clock, show)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_sampler(state, options, ended),
            scheduler=_halving(options, order, ended),
            num_samples=most - len(ended),
            time_budget_s=clock.left(),
            trial_dirname_creator=lambda trial: trial.trial_id,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            name=notes.name,
            storage_path=str(notes.parent),
            callbacks=[watch],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_STARTS),
        ),
    )
    tuner.fit()
    watch.close()
    shutil.rmtree(notes, ignore_errors=True)


def _run(config: Mapping[str, Any], order: Mapping[str, Any], folder: str) -> None:
    """Train one trial in a process of Ray."""
    import ray
    from ray import tune

    # Ray moves to a folder of its own, where the relative paths of a base lead nowhere.
    if os.path.isdir(folder):
        os.chdir(folder)
    node = ray.get_runtime_context().get_node_id()[:8]
    train_trial(
        TrialOrder(**order),
        TrialSpec.from_choice(config),
        lambda found: tune.report({**found, 'node': node}),
    )


def _sampler(
    state: SearchState, options: SearchOptions, ended: list[TrialRecord]
) -> Any:
    """Optuna's sampler, which knows what ended and starts with what did not."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = [candidate.key for candidate in state.usable]
    space: dict[str, Any] = dict(
        candidate=CategoricalDistribution(keys),
        rate=FloatDistribution(*FACTORS, log=True),
    )
    if all(can_freeze(dict(find(c.name).config), c.weights) for c in state.usable):
        space['freezing'] = CategoricalDistribution(FREEZING)
    specs = [r.spec for r in state.trials.values() if not r.ended]
    # Every candidate once as its recipe says, before anything is moved.
    begun = set(state.trials)
    first = [TrialSpec(c.name, c.size) for c in state.usable]
    specs += [spec for spec in first if spec.name not in begun]
    found = OptunaSearch(
        space,
        metric=_METRIC,
        mode='max',
        points_to_evaluate=[spec.to_choice(space) for spec in specs] or None,
        # The same seed would choose again what it chose in an earlier run.
        seed=options.seed + len(state.trials),
    )
    for record in ended:
        failed = record.status == FAILED
        found.add_evaluated_point(record.spec.to_choice(space), record.ap, error=failed)
    return found


def _halving(
    options: SearchOptions, order: TrialOrder, ended: list[TrialRecord]
) -> Any:
    """Successive halving that knows how far earlier trials came."""
    from ray.tune.schedulers import ASHAScheduler

    found: Any = ASHAScheduler(
        time_attr=_TIME,
        metric=_METRIC,
        mode='max',
        max_t=options.epochs,
        grace_period=order.every,
        reduction_factor=REDUCTION,
    )
    for record in ended:
        trial = SimpleNamespace(trial_id=record.spec.name)
        found.on_trial_add(None, trial)
        for epoch, ap in sorted(record.series.items()):
            found.on_trial_result(None, trial, {_TIME: epoch, _METRIC: ap})
        found.on_trial_remove(None, trial)
    return found
