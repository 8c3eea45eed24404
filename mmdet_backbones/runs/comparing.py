"""What trainings came to: one told at its end, several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands import command
from ..files import ABSENT, FOLDER, already_there, not_there, what_is, write_atomically
from .logs import read_log
from .records import Run, read_run

if TYPE_CHECKING:
    from rich.table import Table

PICTURE = 'training.png'
TABLE, DATA = 'comparison.md', 'comparison.json'
CURVES, COSTS = 'ap_over_epochs.png', 'ap_against_costs.png'
FILES = (TABLE, DATA, CURVES, COSTS)
_COLUMNS = (
    'run',
    'detector',
    'backbone',
    'best AP',
    'at',
    'last AP',
    'trained',
    'time',
    'memory',
    'parameters',
    'of the backbone',
    'GFLOPs',
    'image',
    'started from',
)
_NONE = '-'
# More would not fit beside each other on 80 columns.
_SIDE_BY_SIDE = 3


@dataclass(frozen=True)
class Comparison:
    """Trainings, best first.

    Attributes:
        runs: Those with a value first, by it, then the others.
        notes: What has to be known to compare them.
    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...]

    @property
    def compared(self) -> list[Run]:
        """Those that have a value."""
        return [run for run in self.runs if not run.problem]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return {
            'runs': [run.to_dict() for run in self.runs],
            'notes': list(self.notes),
        }

    def to_json(self) -> str:
        """Return the data as JSON."""
        return json.dumps(self.to_dict(), indent=1) + '\n'

    def to_markdown(self) -> str:
        """Return the table as Markdown, with what has to be known below it."""
        rows = [_COLUMNS, ['-' * 3] * len(_COLUMNS), *map(_row, self.runs)]
        lines = [f'| {" | ".join(map(_cell, row))} |' for row in rows]
        return '\n'.join([*lines, '', *self._below()]) + '\n'

    def to_tables(self) -> list[Table | str]:
        """Return tables for a terminal, a few trainings side by side in each.

        What has to be known follows as text.
        """
        from rich.table import Table

        parts: list[Table | str] = []
        for start in range(0, len(self.runs), _SIDE_BY_SIDE):
            rows = [_row(run) for run in self.runs[start : start + _SIDE_BY_SIDE]]
            table = Table('', *(row[0] for row in rows))
            for name, *values in list(zip(_COLUMNS, *rows, strict=True))[1:]:
                table.add_row(name, *values)
            for column in table.columns:
                column.overflow = 'fold'
            parts.append(table)
        return [*parts, *self._below()]

    def _below(self) -> list[str]:
        below = [f'- {run.name}: **{run.problem}**' for run in self.runs if run.problem]
        below += [f'- {run.name}: {note}' for run in self.runs for note in run.notes]
        below += [
            f'- {run.name}: checkpoint `{run.checkpoint}`'
            for run in self.runs
            if run.checkpoint
        ]
        return below + [f'- {note}' for note in self.notes]


def compare(work_dirs: Sequence[Path], metric: str | None = None) -> Comparison:
    """Read work directories and put their trainings side by side.

    Args:
        work_dirs: As mmengine's Runner leaves them.
        metric: What to compare, such as ``'coco/bbox_mAP_50'``; mmdet's usual AP if
            left out.

    Returns:
        The trainings; those that cannot be compared say why.
    """
    names = _short_names([path.resolve() for path in work_dirs])
    runs = [
        replace(read_run(path, metric), name=name)
        for path, name in zip(work_dirs, names, strict=True)
    ]
    runs.sort(key=lambda run: -run.best[1] if run.best else float('inf'))
    return Comparison(tuple(runs), tuple(_notes(runs)))


def problems_with(
    work_dirs: Sequence[Path], out: Path | None = None, force: bool = False
) -> list[str]:
    """Return why a comparison cannot be made; nothing if it can.

    Args:
        work_dirs: To be compared.
        out: Folder for the files, None if none are wanted.
        force: Whether files that are there may be replaced.
    """
    named = [not_there(path, 'folder', FOLDER) for path in work_dirs]
    found = [problem for problem in named if problem is not None]
    whole = [path.resolve() for path in work_dirs if what_is(path) == FOLDER]
    twice = {str(path): None for path in whole if whole.count(path) > 1}
    found += [f"'{path}' is named twice" for path in twice]
    return found + (_problems_of_place(out, force) if out is not None else [])


def _problems_of_place(out: Path, force: bool) -> list[str]:
    places = (out.absolute(), *out.absolute().parents)
    near = next(place for place in places if what_is(place) != ABSENT)
    if what_is(near) != FOLDER:
        return [f"-o '{out}': '{near}' is {what_is(near)}, name a folder"]
    problem = already_there([out / name for name in FILES], force)
    return [problem] if problem else []


def write(comparison: Comparison, out: Path) -> list[Path]:
    """Write table, data and plots.

    Args:
        comparison: What to write.
        out: Folder; it is made if it is missing.

    Returns:
        The files.

    Raises:
        UserError: If they cannot be written.
    """
    from .plots import plot_costs, plot_curves

    content = {
        TABLE: comparison.to_markdown().encode(),
        DATA: comparison.to_json().encode(),
    }
    if comparison.compared:
        content[CURVES] = plot_curves(comparison.compared)
        content[COSTS] = plot_costs(comparison.compared)
    for name, data in content.items():
        write_atomically(out / name, data)
    return [out / name for name in content]


def summarise(work_dir: Path, config: str) -> str:
    """Draw the curves of a training that has ended, and say what it reached.

    Writes ``training.png`` into the work directory: loss, learning rate and AP.

    Args:
        work_dir: Of the Runner.
        config: As the user named it, for the next command.

    Returns:
        A few lines for the log.
    """
    from .examples import BestAndWorstHook
    from .plots import plot_training

    run = read_run(work_dir, with_costs=False)
    log = read_log(work_dir)
    what = f'{run.detector} with {run.backbone}' if run.detector else run.name
    lines = [f'{what}: {_reached(run)}']
    used = f'{duration(run.seconds)} of training, without validation'
    if run.memory:
        used += f', at most {run.memory:.0f} MB of GPU memory'
    lines.append(used)
    if log.steps:
        write_atomically(
            work_dir / PICTURE,
            plot_training(log, run.metric, f'{what}\n{_reached(run)}'),
        )
        lines.append(f'loss, learning rate and AP: {work_dir / PICTURE}')
    examples = work_dir / BestAndWorstHook.file_name
    if examples.is_file():
        lines.append(f'detections of the best and the worst images: {examples}')
    if run.checkpoint is not None:
        lines.append(f'next: {command("test")} {config} {run.checkpoint}')
    return '\n  '.join(lines)


def _reached(run: Run) -> str:
    if run.best is None or run.last is None:
        return run.problem
    step, value = run.best
    text = f'best {run.metric} {value:.3f} after {run.unit} {step}'
    planned = f' of {run.planned}' if run.planned else ''
    return f'{text}{planned}, {run.last[1]:.3f} at the end'


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as tell them apart."""
    for count in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ['/'.join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _notes(runs: Sequence[Run]) -> list[str]:
    compared = [run for run in runs if not run.problem]
    notes = [
        'AP is '
        + ', '.join(sorted({str(run.metric) for run in compared}))
        + '; time is that of the training iterations, without validation',
        'FLOPs are those of backbone, neck and dense head for one image of the size '
        'of the test, a multiply-add as two; what comes after depends on the image',
    ]
    differing: dict[str, set[Any]] = {
        'metrics': {run.metric for run in compared},
        'validation data': {run.data for run in compared if run.data},
        'image sizes': {run.costs.size for run in compared if run.costs.size},
        'parts that were counted': {
            r.costs.parts[2:] for r in compared if r.costs.flops
        },
    }
    for what, values in differing.items():
        if len(values) > 1:
            shown = '; '.join(sorted(_plain(value) for value in values))
            notes.insert(0, f'**Not the same {what}**: {shown}')
    return notes if compared else ['Nothing can be compared']


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ' x '.join(map(str, value)) or 'no dense head'
    return str(value)


def _row(run: Run) -> list[str]:
    costs = run.costs
    best, last = run.best, run.last
    planned = f' of {run.planned}' if run.planned and run.planned != run.reached else ''
    return [
        run.name,
        run.detector or _NONE,
        run.backbone or _NONE,
        f'{best[1]:.3f}' if best else _NONE,
        f'{run.unit} {best[0]}' if best else run.problem,
        f'{last[1]:.3f}' if last else _NONE,
        f'{run.reached}{planned} {run.unit}s' if run.reached else _NONE,
        duration(run.seconds) if run.seconds else _NONE,
        f'{run.memory:.0f} MB' if run.memory else _NONE,
        _millions(costs.parameters),
        _millions(costs.backbone_parameters),
        f'{costs.flops / 1e9:.1f}' if costs.flops else _NONE,
        f'{costs.size[0]} x {costs.size[1]}' if costs.size else _NONE,
        run.pretrained or _NONE,
    ]


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}'


def _millions(count: int | None) -> str:
    return _NONE if count is None else f'{count / 1e6:.2f} M'


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')
