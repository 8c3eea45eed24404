"""What a search found: a table, data, a picture, and the config of the best trial."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.figure import Figure

from ..commands import command
from ..files import write_atomically
from ..runs.comparing import duration
from ..speed.labels import Dot, label_dots
from .candidates import Candidate
from .options import SearchOptions
from .state import FINISHED, SearchState, TrialRecord
from .training import TrialOrder, iterations_of
from .trial_config import write_trial_config

TABLE, PICTURE, WINNER = 'search.md', 'search.png', 'winner.py'
HEADS = ('trial', 'backbone', 'size', 'rate', 'freezing', 'AP', 'epochs', 'ms',
         'parameters', 'licence', 'time', 'state')  # fmt: skip
_NONE = '-'
NOTHING_FOUND = (
    'No trial found anything, so that the order of them means nothing: write more '
    '--epochs, or larger --sizes, and another folder.'
)


class Point(NamedTuple):
    """What the best trial of a candidate came to."""

    milliseconds: float
    ap: float
    name: str


class Guessed(NamedTuple):
    """What was guessed of candidates before any was trained.

    Attributes:
        scores: By the key of the candidate, higher for better ones.
        correlate: Correlates the ranks of two rows of numbers; None where it cannot.
    """

    scores: Mapping[str, float]
    correlate: Callable[[Sequence[float], Sequence[float]], float | None]


def ranked(state: SearchState) -> list[TrialRecord]:
    """Trials, the best first, and the faster of equals.

    Those that trained all epochs stand before the others.
    """

    def order(record: TrialRecord) -> tuple[bool, float, float, str]:
        took = state.candidate_of(record.spec).milliseconds or math.inf
        return record.status != FINISHED, -record.ap, took, record.spec.name

    return sorted(state.trials.values(), key=order)


def best_of(state: SearchState) -> TrialRecord | None:
    """The trial to go on with, None if none measured anything."""
    found = [r for r in ranked(state) if r.series and not r.error]
    return found[0] if found else None


def row_of(state: SearchState, record: TrialRecord) -> tuple[str, ...]:
    """The cells of a trial, under :data:`HEADS`."""
    spec, candidate = record.spec, state.candidate_of(record.spec)
    return (
        spec.name.rpartition('_')[2],
        spec.backbone,
        f'{spec.size[0]} x {spec.size[1]}',
        f'{spec.rate:.2f}',
        spec.freezing,
        f'{record.ap:.3f}' if record.series else _NONE,
        f'{record.epoch:g}',
        _milliseconds(candidate),
        f'{candidate.params / 1e6:.2f} M' if candidate.params else _NONE,
        candidate.licence or _NONE,
        duration(record.seconds),
        f'{record.status}: {record.error}' if record.error else record.status,
    )


def _milliseconds(candidate: Candidate) -> str:
    found = candidate.milliseconds
    return _NONE if found is None else f'{found:.1f}'


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both time and AP, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.milliseconds, -p.ap)):
        if not found or point.ap > found[-1].ap:
            found.append(point)
    return found


def points_of(state: SearchState) -> list[Point]:
    """The best AP of each candidate that was trained, and its latency."""
    best: dict[str, Point] = {}
    for record in state.trials.values():
        candidate = state.candidate_of(record.spec)
        if candidate.milliseconds is None or not record.series:
            continue
        before = best.get(candidate.key)
        if before is None or record.ap > before.ap:
            best[candidate.key] = Point(
                candidate.milliseconds, record.ap, candidate.key
            )
    return list(best.values())


def write_report(
    state: SearchState,
    options: SearchOptions,
    order: TrialOrder,
    guessed: Guessed | None = None,
) -> list[Path]:
    """Write what was found.

    Args:
        state: Of the search.
        options: Of the search.
        order: Of its trials.
        guessed: Before the trials, to be compared with them.

    Returns:
        The files.
    """
    files = []
    winner = best_of(state)
    state.winner = winner.spec.name if winner else None
    if winner is not None:
        path = options.out / WINNER
        swap = order.swap_options(winner.spec, path, None)
        files.append(write_trial_config(winner.spec, swap))
    points = points_of(state)
    if points:
        files.append(options.out / PICTURE)
        write_atomically(files[-1], _picture(points, options))
    files.append(options.out / TABLE)
    write_atomically(files[-1], to_markdown(state, options, guessed))
    state.write()
    return files


def next_command(options: SearchOptions) -> str:
    """What trains the winner to the end."""
    return f'{command("train")} {shlex.quote(str(options.out / WINNER))}'


def to_markdown(
    state: SearchState, options: SearchOptions, guessed: Guessed | None = None
) -> str:
    """Lay out a search as Markdown."""
    return '\n'.join(_lines(state, options, guessed)) + '\n'


def _lines(
    state: SearchState, options: SearchOptions, guessed: Guessed | None
) -> Iterator[str]:
    yield f'# Backbones for {options.data} in {options.base}\n'
    yield (
        f'{len(state.usable)} candidates, {len(state.candidates) - len(state.usable)} '
        f'left out, {len(state.trials)} trials of up to {options.epochs} epochs, '
        f'{duration(state.spent)} of {duration(3600 * options.hours)}, seed '
        f'{options.seed}. AP is the best of the validations.\n'
    )
    winner = best_of(state)
    if winner is not None:
        yield (
            f'Best: **{winner.spec.backbone}**, AP {winner.ap:.3f}. Train it to the '
            f'end:\n\n    {next_command(options)}\n'
        )
        if not winner.ap:
            yield f'{NOTHING_FOUND}\n'
        whole = sum(record.status == FINISHED for record in state.trials.values())
        if not whole:
            yield 'No trial trained all epochs: those that came further count less.\n'
        if points_of(state):
            yield f'![AP against milliseconds]({PICTURE})\n'
    waiting = sum(not record.ended for record in state.trials.values())
    if waiting:
        yield (
            f'{waiting} trials are unfinished: the same command, with more --hours if '
            'they are over, goes on with them.\n'
        )
    fast = {point.name for point in front(points_of(state))}
    yield from _table(HEADS, [row_of(state, record) for record in ranked(state)])
    if fast:
        yield f'\nOn the Pareto front: {", ".join(sorted(fast))}.'
    if guessed is not None:
        yield from _guess_lines(state, guessed)
    out = [c for c in state.candidates if c.refused]
    if out:
        yield '\n## Left out\n'
        heads = ('backbone', 'size', 'ms', 'reason')
        yield from _table(
            heads,
            [
                (c.name, f'{c.size[0]} x {c.size[1]}', _milliseconds(c), c.refused)
                for c in out
            ],
        )
    yield '\n## Iterations\n'
    rows = [
        (r.spec.name, _spans(options, r), ', '.join(r.nodes) or _NONE)
        for r in ranked(state)
    ]
    yield from _table(('trial', 'trained, by each process', 'nodes'), rows)
    versions = ', '.join(f'{k} {v}' for k, v in state.versions.items())
    yield f'\nData {state.data[:16]}, {versions}.'


def _guess_lines(state: SearchState, guessed: Guessed) -> Iterator[str]:
    """Candidates as they were guessed beside what their trainings came to."""
    rows = [
        (guessed.scores[point.name], point.ap, point.name)
        for point in points_of(state)
        if point.name in guessed.scores
    ]
    yield '\n## Guessed before the trainings\n'
    cells = [(n, f'{s:.4g}', f'{ap:.3f}') for s, ap, n in sorted(rows, reverse=True)]
    yield from _table(('candidate', 'guess', 'best AP'), cells)
    found = guessed.correlate([row[0] for row in rows], [row[1] for row in rows])
    told = 'not known' if found is None else f'{found:.2f}'
    count = len(rows)
    yield f'\nSpearman rank correlation of guess and AP, {count} candidates: {told}.'


def _spans(options: SearchOptions, record: TrialRecord) -> str:
    spans = iterations_of(options.out / 'trials' / record.spec.name)
    return ', '.join(f'{first}-{last}' for first, last in spans) or _NONE


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (heads, ['---'] * len(heads), *rows):
        cells = (' '.join(str(cell).split()).replace('|', '\\|') for cell in row)
        yield f'| {" | ".join(cells)} |'


def _picture(points: Sequence[Point], options: SearchOptions) -> bytes:
    figure = search_figure(points, f'latency on {options.device}, one image')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def search_figure(points: Sequence[Point], heading: str, height: float = 6) -> Figure:
    """Draw AP against milliseconds, with the Pareto front as a line.

    Args:
        points: The best of each candidate.
        heading: Above the plot.
        height: In inches.
    """
    figure = Figure(figsize=(9, height), layout='constrained', dpi=120)
    axes = figure.subplots()
    best = front(points)
    colours = [colormaps['tab10'](0 if point in best else 7) for point in points]
    axes.plot(
        [p.milliseconds for p in best], [p.ap for p in best],
        color=colormaps['tab10'](0), marker='o', ms=12, mfc='none',
        label='Pareto front',
    )  # fmt: skip
    axes.scatter(
        [p.milliseconds for p in points], [p.ap for p in points], 40, color=colours
    )
    axes.set(xlabel='milliseconds of an image', ylabel='best AP', ylim=(0, None))
    axes.margins(0.15)
    axes.set_title(heading, fontsize=9, loc='left')
    axes.grid(alpha=0.3)
    axes.legend()
    dots = [
        Dot(p.milliseconds, p.ap, 40, p.name, colour)
        for p, colour in zip(points, colours, strict=True)
    ]
    if label_dots(axes, dots) and height < 20:
        return search_figure(points, heading, 1.5 * height)
    return figure
