"""Results of a benchmark as a table, as JSON and as a plot."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError
from ..files import target_problem, write_atomically
from .nets import Settings
from .timing import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

_FORMATS = ('.png', '.svg', '.pdf')
_MARKERS = 'osD^vPX'


def check_plot(path: Path | None, force: bool) -> None:
    """Refuse a plot that could not be written, before anything is measured.

    Raises:
        UserError: With what to write instead.
    """
    if path is not None:
        problem = target_problem(path, _FORMATS, force, '--plot', new_folder=False)
        if problem:
            raise UserError(problem)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on stderr.

    Args:
        total: Number of steps.

    Yields:
        What to call with a description as each step begins.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('', total=total)
        yield lambda doing: bar.update(task, advance=1, description=doing)


def environment(settings: Settings) -> dict[str, Any]:
    """Name what the figures depend on besides the nets."""
    cuda = settings.device == 'cuda'
    return dict(
        device=torch.cuda.get_device_name() if cuda else platform.machine(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def report(results: Sequence[Measured], settings: Settings) -> dict[str, Any]:
    """Return everything, for ``json.dumps``."""
    return dict(
        settings=settings.to_dict(),
        environment=environment(settings),
        results=[result.to_dict() for result in results],
    )


def title(settings: Settings) -> str:
    """Say in one line what was run."""
    height, width = settings.size
    words = [
        'forward and backward' if settings.train else 'inference',
        f'{settings.batch} x {height} x {width}',
        settings.device,
    ]
    if settings.device == 'cpu':
        threads = torch.get_num_threads()
        words.append(f'{threads} thread{"" if threads == 1 else "s"}')
    if settings.channels_last:
        words.append('channels-last')
    if settings.fuse:
        words.append('folded')
    if settings.detector is not None:
        words.append(f'in {Path(settings.detector.rpartition("::")[2]).stem}')
    return ', '.join(words)


def table(results: Sequence[Measured], settings: Settings) -> Table:
    """Lay the results out for a terminal."""
    from rich.table import Table

    found = Table(title=title(settings), title_justify='left', box=None)
    found.add_column('backbone', overflow='fold')
    for column in (
        'parameters', 'GFLOPs', 'ms (quartiles)', 'images/s', 'peak MiB',
    ):  # fmt: skip
        found.add_column(column, justify='right', no_wrap=True)
    for row in results:
        spread = f'{row.latency_low_ms:.1f}-{row.latency_high_ms:.1f}'
        found.add_row(
            row.name,
            f'{row.parameters / 1e6:.2f} M',
            f'{row.gflops:.2f}',
            f'{row.latency_ms:.1f} ({spread})',
            f'{row.images_per_second:.1f}',
            f'{row.peak_memory_mib:.0f}',
        )
    return found


def save_plot(results: Sequence[Measured], settings: Settings, path: Path) -> None:
    """Draw speed against size, the area of a dot by its memory.

    Args:
        results: What to draw.
        settings: For the title.
        path: Of the picture; its ending decides the format.
    """
    buffer = io.BytesIO()
    figure = speed_figure(results, title(settings))
    figure.savefig(buffer, format=path.suffix[1:])
    write_atomically(path, buffer.getvalue())


def speed_figure(
    results: Sequence[Measured], heading: str, height: float | None = None
) -> Figure:
    """Draw what :func:`save_plot` saves.

    Args:
        results: What to draw.
        heading: Above the plot.
        height: In inches, by the number of names if left out; more if they have no
            room.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from .labels import Dot, label_dots

    # Figure without pyplot: no global state, no window, no other backend's turn.
    height = height or max(6.0, 3 + 0.15 * len(results))
    figure = Figure(figsize=(10, height), layout='constrained', dpi=120)
    axes = figure.subplots()
    largest = max(row.peak_memory_mib for row in results) or 1.0
    by_speed = sorted(results, key=lambda row: -row.images_per_second)
    dots = [
        Dot(
            row.parameters / 1e6,
            row.images_per_second,
            30 + 270 * row.peak_memory_mib / largest,
            row.name,
            colormaps['tab10'](number % 10),
        )
        for number, row in enumerate(by_speed)
    ]
    for number, dot in enumerate(dots):
        marker = _MARKERS[number % len(_MARKERS)]
        axes.scatter(dot.x, dot.y, dot.area, color=dot.colour, marker=marker, alpha=0.6)
    axes.set(
        xscale='log',
        yscale='log',
        xlabel=f'parameters in millions (area: peak memory, at most {largest:.0f} MiB)',
        ylabel='images per second',
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(LogLocator(subs=()))
        axis.set_major_formatter('{x:g}')
    axes.margins(0.12)
    axes.set_title(heading, fontsize=9, loc='left')
    axes.grid(alpha=0.3)
    if label_dots(axes, dots):
        return speed_figure(results, heading, 1.5 * height)
    return figure
