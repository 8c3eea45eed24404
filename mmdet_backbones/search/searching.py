"""A search from its options to its report: candidates, latencies, trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from ..detector_config.read import read_by_name
from ..errors import UserError
from ..runs.costs import image_size
from ..runs.folders import TRIALS
from .candidates import Wishes, find_candidates
from .cluster import connect
from .guess import GUESSES, Guess, GuessOptions, guess, write_guesses
from .latency import measure_candidate
from .mirror import Mirror
from .options import SearchOptions, require_sound_options
from .report import Guessed, write_report
from .state import RUNNING, WAITING, Clock, SearchState, Shows, open_search
from .training import TrialOrder
from .tuning import tune_trials

# Of the hours, for latencies.
_MEASURING = 0.25
# With more hours it is measured after all.
LATE = 'not measured: a quarter of --hours was over'


def search(
    options: SearchOptions,
    shows: AbstractContextManager[Shows],
    resume: bool = False,
    guessed: Guessed | None = None,
) -> SearchState:
    """Find the backbone for a data set, or go on with it where a search was ended.

    Args:
        options: What to search.
        shows: Shows the state while it changes.
        resume: Whether there must be a search to go on with.
        guessed: Before the trials, for the report.

    Returns:
        The search; its report is written.

    Raises:
        UserError: If something that is asked for cannot be had, or no candidate is
            left; the report then tells why.
    """
    require_sound_options(options)
    state = open_search(options, resume)
    order = trial_order(options, state.data)
    clock = Clock(state, options.hours)
    with shows as show:
        _measure(state, options, order, clock, show)
        if not state.usable:
            write_report(state, options, order)
            raise UserError(
                f"no candidate is left, '{options.out / 'search.md'}' tells why of each"
            )
        for record in state.trials.values():
            if record.status == RUNNING:
                record.status = WAITING
        most = options.trials or 2 * len(state.usable)
        if clock.left() > 0 and sum(r.ended for r in state.trials.values()) < most:
            with connect(options.ray):
                tune_trials(state, options, order, most, clock, show)
            if order.storage is not None:
                for name in state.trials:
                    Mirror(order.storage, Path(order.folder, name)).fetch()
    clock.note()
    write_report(state, options, order, guessed)
    return state


def guess_first(
    options: SearchOptions, shows: AbstractContextManager[Shows], resume: bool = False
) -> list[Guess]:
    """Guess which candidates suit the data set; nothing is trained.

    A search in the same folder goes on from the candidates and latencies of the guess,
    and its report compares both.

    Args:
        options: What to search.
        shows: Shows how far it is.
        resume: As for :func:`search`.

    Returns:
        A guess for each candidate, the most promising first; it is written, too.

    Raises:
        UserError: If something that is asked for cannot be had.
    """
    require_sound_options(options)
    state = open_search(options, resume)
    clock = Clock(state, options.hours)
    looks = GuessOptions(
        options.base, options.data, device=options.device, seed=options.seed
    )
    with shows as show:
        _measure(state, options, trial_order(options, state.data), clock, show)
        found = guess(
            state.candidates, looks, lambda key: show(state, f'guessing {key}')
        )
    write_guesses(options.out / GUESSES, looks, found)
    clock.note()
    state.write()
    return found


def trial_order(options: SearchOptions, digest: str) -> TrialOrder:
    """What trials are told; paths hold in processes that start elsewhere."""
    base = options.base if '::' in options.base else str(Path(options.base).resolve())
    files = {name: _absolute(source) for name, source in options.checkpoints.items()}
    return TrialOrder(
        folder=str((options.out / TRIALS).resolve()),
        storage=_absolute(options.storage) if options.storage else None,
        base=base,
        data=str(Path(options.data).resolve()),
        digest=digest,
        epochs=options.epochs,
        every=first_look(options.epochs),
        seed=options.seed,
        cpus=options.cpus_per_trial,
        resized=bool(options.sizes),
        batch=options.batch,
        no_weights=options.no_weights,
        checkpoints=files,
    )


def _absolute(place: str) -> str:
    return place if '://' in place else str(Path(place).resolve())


def first_look(epochs: int) -> int:
    """Epochs before a trial is compared for the first time, and between validations."""
    return max(epochs // 6, 1)


def _measure(
    state: SearchState,
    options: SearchOptions,
    order: TrialOrder,
    clock: Clock,
    show: Shows,
) -> None:
    """Look candidates up and measure them; those that an earlier run measured stay."""
    if not state.candidates:
        wishes = Wishes(
            options.backbones,
            options.licence,
            options.max_params,
            options.no_weights,
            options.checkpoints,
        )
        state.candidates = find_candidates(wishes, list(_sizes(options)))
        state.write()
    until = clock.seconds * (1 - _MEASURING)
    for index, candidate in enumerate(state.candidates):
        if candidate.milliseconds is not None or candidate.refused not in ('', LATE):
            continue
        if clock.left() > until:
            found = measure_candidate(candidate, options, order)
        else:
            found = replace(candidate, refused=LATE)
        state.candidates[index] = found
        clock.note()
        state.write()
        show(state, f'{found.key}: {found.refused or f"{found.milliseconds:g} ms"}')


def _sizes(options: SearchOptions) -> Iterator[tuple[int, int]]:
    if options.sizes:
        yield from ((side, side) for side in dict.fromkeys(options.sizes))
    else:
        yield image_size(read_by_name(options.base))
