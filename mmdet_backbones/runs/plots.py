"""Plots of several trainings."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..pictures.visualizing import fitted
from .logs import Log
from .records import Run

_DPI = 120
_MARKERS = 'osD^vPX*<>'


def plot_curves(runs: Sequence[Run]) -> bytes:
    """Draw AP over epochs, the best of each training marked.

    Trainings that count iterations and those that count epochs are drawn together
    over their share of the training.

    Args:
        runs: All with a value.

    Returns:
        A PNG.
    """
    return _rendered(curves_figure(runs))


def curves_figure(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`plot_curves` returns as a picture."""
    figure, (axes,) = _figure(1, len(runs))
    units = {run.unit for run in runs}
    for number, run in enumerate(runs):
        whole = (run.planned or run.reached or 1) / 100 if len(units) > 1 else 1
        steps = [step / whole for step, _ in run.series]
        values = [value for _, value in run.series]
        axes.plot(steps, values, **_style(number), label=run.name)
        assert run.best is not None
        step, value = run.best
        axes.plot(step / whole, value, 'o', ms=13, mfc='none', mec=_colour(number))
    axes.set(
        xlabel=units.pop() if len(units) == 1 else 'share of the training in %',
        ylabel=_ylabel(runs),
        title='validations, the best one in a circle',
        xlim=(0, None),
        ylim=(0, None),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _with_legend(figure, axes)


def plot_training(log: Log, metric: str | None, title: str) -> bytes:
    """Draw loss, learning rates and AP of one training over its iterations.

    Args:
        log: With at least one step.
        metric: Of the validations; None if there were none.
        title: Of the picture.

    Returns:
        A PNG.
    """
    return _rendered(training_figure(log, metric, title))


def training_figure(log: Log, metric: str | None, title: str) -> Figure:
    """Draw what :func:`plot_training` returns as a picture."""
    figure = Figure(figsize=(7, 8), layout='constrained')
    figure.suptitle(fitted(title, 7, 12))
    losses, rates, values = figure.subplots(3, 1, sharex=True)
    steps = [entry['step'] for entry in log.steps]
    losses.plot(steps, _logged(log, 'loss'), color=_colour(0), linewidth=1.5)
    losses.set(ylabel='loss', ylim=(0, None))
    # The second line is dashed: the first shows where they are the same.
    styles = (dict(color=_colour(0)), dict(color=_colour(2), linestyle='--'))
    for style, (label, of_steps) in zip(styles, _rates(log).items(), strict=False):
        rates.plot(steps, of_steps, **style, linewidth=1.5, label=label)
    rates.set(ylabel='learning rate', ylim=(0, None))
    if rates.get_lines()[0].get_label() != 'lr':
        rates.legend(fontsize=9)
    points = log.series(metric, 'iteration') if metric else []
    values.plot(*zip(*points, strict=True) if points else ([], []), **_style(1))
    values.set(xlabel='iteration', ylabel=metric or 'no validation', ylim=(0, None))
    for axes in (losses, rates, values):
        axes.grid(alpha=0.3)
    return figure


def _rates(log: Log) -> dict[str, list[float]]:
    """Learning rates over the steps by what learns at them.

    mmengine logs the rate of the first parameters, which are the backbone's, and the
    one before parameters get rates of their own, which is the head's.
    """
    first, base = _logged(log, 'lr'), _logged(log, 'base_lr')
    if all(map(math.isnan, base)) or first == base:
        return {'lr': first}
    return {'head': base, 'backbone (its first parameters)': first}


def _logged(log: Log, name: str) -> list[float]:
    return [entry.get(name, math.nan) for entry in log.steps]


def plot_costs(runs: Sequence[Run]) -> bytes:
    """Draw the best AP against parameters, operations and time of training.

    Args:
        runs: All with a value.

    Returns:
        A PNG.
    """
    return _rendered(costs_figure(runs))


def costs_figure(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`plot_costs` returns as a picture."""
    figure, panels = _figure(3, len(runs))
    short = max(run.seconds for run in runs) < 2 * 3600
    measures: dict[str, list[float | None]] = {
        'parameters of the detector in M': [_in(r.costs.parameters, 1e6) for r in runs],
        'GFLOPs of an image': [_in(r.costs.flops, 1e9) for r in runs],
        f'training in {"minutes" if short else "hours"}': [
            _in(r.seconds, 60 if short else 3600) for r in runs
        ],
    }
    for axes, (name, costs) in zip(panels, measures.items(), strict=True):
        for number, (run, cost) in enumerate(zip(runs, costs, strict=True)):
            assert run.best is not None
            # Every run in the legend, also where its cost is not known.
            point = ([], []) if cost is None else ([cost], [run.best[1]])
            axes.plot(*point, **_style(number), linestyle='none', label=run.name)
        unknown = costs.count(None)
        note = f' ({unknown} of {len(runs)} not known)' if unknown else ''
        axes.set(xlabel=name + note, xlim=(0, None), ylim=(0, None))
    panels[0].set_ylabel(_ylabel(runs))
    return _with_legend(figure, panels[0])


def _in(count: float | None, unit: float) -> float | None:
    return count / unit if count else None


def _figure(count: int, runs: int) -> tuple[Figure, list[Any]]:
    # Figure without pyplot: no global state, no window, no other backend's turn.
    figure = Figure(
        figsize=(7 if count == 1 else 4 * count, 4 + 0.2 * runs), layout='constrained'
    )
    panels = list(figure.subplots(1, count, squeeze=False, sharey=True)[0])
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _with_legend(figure: Figure, named: Any) -> Figure:
    handles, labels = named.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    labels = [fitted(label, width - 0.7, 9) for label in labels]
    more = sum(label.count('\n') for label in labels)
    figure.set_size_inches(width, height + 0.2 * more)
    figure.legend(handles, labels, loc='outside lower left', fontsize=9)
    return figure


def _rendered(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_DPI)
    return buffer.getvalue()


def _style(number: int) -> dict[str, Any]:
    return dict(
        color=_colour(number), marker=_MARKERS[number % len(_MARKERS)], linewidth=1.5
    )


def _colour(number: int) -> Any:
    return colormaps['tab10'](number % 10)


def _ylabel(runs: Sequence[Run]) -> str:
    metrics = {str(run.metric) for run in runs}
    return metrics.pop() if len(metrics) == 1 else 'AP (of several kinds)'
