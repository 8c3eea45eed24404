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
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    # Figure without pyplot: no global state, no window, no other backend's turn.
    figure = Figure(
        figsize=(9, max(5, 1.5 + 0.22 * len(results))), layout='constrained'
    )
    axes = figure.subplots()
    largest = max(row.peak_memory_mib for row in results) or 1.0
    # Names beside the dots would cover each other where nets are alike.
    by_speed = sorted(results, key=lambda row: -row.images_per_second)
    for number, row in enumerate(by_speed):
        axes.scatter(
            row.parameters / 1e6,
            row.images_per_second,
            s=30 + 270 * row.peak_memory_mib / largest,
            color=colormaps['tab20'](number % 20),
            marker=_MARKERS[number % len(_MARKERS)],
            alpha=0.8,
            label=row.name,
        )
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
    axes.set_title(title(settings), fontsize=9, loc='left')
    axes.grid(alpha=0.3)
    legend = figure.legend(loc='outside right upper', fontsize=8)
    handles: list[Any] = list(legend.legend_handles)
    for handle in handles:
        handle.set_sizes([40])
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=120)
    write_atomically(path, buffer.getvalue())
