"""Build every backbone once and write catalog/levels.json and docs/timm.md.

timm takes half an hour on two cores. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from write_docs_tables import timm_page

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.backbones.contract import Backbone
from mmdet_backbones.catalog.entries import SOURCES, find, load_source
from mmdet_backbones.catalog.figures import (
    COUNT_SIZE,
    Figures,
    SourceFigures,
    read_figures,
    write_figures,
)
from mmdet_backbones.catalog.inspection import forward_counted
from mmdet_backbones.catalog.listing import matches
from mmdet_backbones.catalog.published import usual_of
from mmdet_backbones.errors import UserError, run
from mmdet_backbones.levels import PROBE_SIZE, describe_levels
from mmdet_backbones.shapes.build import build_weightless, fixed_size
from mmdet_backbones.shapes.structure import count_parameters, probe_levels

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT = 120.0


def measure_backbone(name: str) -> Figures:
    """Build a backbone on the meta device, run it, and compare it with what it says.

    Args:
        name: Of the catalog.

    Returns:
        Its figures. A ``ValueError`` of its constructor is a refusal; anything else
        that goes wrong, other levels than declared included, is a failure.
    """
    entry = find(name)
    try:
        net = build_weightless({**entry.config, **entry.every_level})
        levels = tuple(probe_levels(net, fixed_size(net) or PROBE_SIZE))
        size = fixed_size(net) or COUNT_SIZE
        _, macs = forward_counted(net, size)
    except UserError as error:
        if isinstance(error.__cause__, ValueError):
            return Figures(refused=str(error))
        return Figures(failed=str(error))
    except Exception as error:  # of nets that nobody here wrote
        return Figures(failed=f'{type(error).__name__}: {error}')
    if isinstance(net, Backbone) and net.levels != levels:
        return Figures(
            failed=f'it declares the levels {describe_levels(net.levels)} and gives '
            f'{describe_levels(levels)}'
        )
    return Figures(count_parameters(net), levels, macs, size)


def sweep(
    names: Iterable[str], jobs: int = 1, limit: float = TIME_LIMIT
) -> Iterator[tuple[str, Figures]]:
    """Measure backbones in processes of their own, equal ones once.

    Args:
        names: Of the catalog.
        jobs: How many processes work at a time.
        limit: Seconds that one backbone may take; it is a failure afterwards.

    Yields:
        Name and figures, in the order in which they are done.
    """
    same: dict[str, list[str]] = {}
    for name in names:
        entry = find(name)
        config = {**entry.config, **entry.every_level}
        same.setdefault(json.dumps(config, sort_keys=True), []).append(name)
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare)
    try:
        tasks = {
            pool.submit(_measure_in_time, group[0], limit): group
            for group in same.values()
        }
        for task in as_completed(tasks):
            for name in tasks[task]:
                yield name, with_weights(name, task.result())
    finally:
        pool.shutdown(cancel_futures=True)


def with_weights(name: str, figures: Figures) -> Figures:
    """Add what the library of a backbone tells of its usual weights."""
    usual = usual_of(find(name))
    if usual is None:
        return replace(figures, published=False, licence=None, top1=None)
    return replace(figures, published=True, licence=usual.licence, top1=usual.top1)


def update_figures(
    source: str,
    only: str = '',
    jobs: int = 1,
    limit: float = TIME_LIMIT,
    record: Path | None = None,
    watch: Callable[[Iterable, int], Iterable] = lambda results, total: results,
) -> SourceFigures:
    """Measure the backbones of a source and write what was found into the file.

    Args:
        source: A key of :data:`~mmdet_backbones.catalog.entries.SOURCES`.
        only: Measure those that match it, see
            :func:`~mmdet_backbones.catalog.listing.matches`, and keep the figures of
            the others.
        jobs: How many processes work at a time.
        limit: Seconds that one backbone may take.
        record: See :func:`resumed_sweep`; without it, nothing can be resumed.
        watch: Wraps the results as they come, with their number, to show progress.

    Returns:
        The figures of what was measured.

    Raises:
        UserError: A ``ValueError``, if the source cannot be used or nothing matches.
    """
    loaded = load_source(source)
    names = [name for name in loaded.entries if matches(name, only)]
    if jobs < 1:
        raise UserError(f'at least one job is needed, got {jobs}')
    if not names:
        raise UserError(loaded.problem or f"{source} has nothing that matches '{only}'")
    if record is None:
        results = sweep(names, jobs, limit)
    else:
        results = resumed_sweep(source, names, record, jobs, limit)
    found = dict(watch(results, len(names)))
    figures = dict(read_figures())
    known = dict(figures.get(source, SourceFigures()).models) if only else {}
    known |= found
    kept = {name: known[name] for name in loaded.entries if name in known}
    figures[source] = SourceFigures(loaded.version, kept)
    write_figures({key: figures[key] for key in SOURCES if key in figures})
    if record is not None:
        record.unlink()
    return SourceFigures(loaded.version, found)


def resumed_sweep(
    source: str,
    names: Sequence[str],
    record: Path,
    jobs: int = 1,
    limit: float = TIME_LIMIT,
) -> Iterator[tuple[str, Figures]]:
    """Measure backbones, going on where an interrupted run of the same kind stopped.

    Args:
        source: Whose backbones.
        names: Of the catalog.
        record: Keeps one result per line. One that was made with another version of
            the library begins anew; delete it to measure all again.
        jobs: How many processes work at a time.
        limit: Seconds that one backbone may take.

    Yields:
        Name and figures, those of the record first.
    """
    done = _read_record(record, load_source(source).version)
    yield from ((name, done[name]) for name in names if name in done)
    with record.open('a', encoding='utf-8') as file:
        for name, figures in sweep([n for n in names if n not in done], jobs, limit):
            line = {'name': name, **figures.to_dict()}
            file.write(f'{json.dumps(line)}\n')
            file.flush()
            yield name, figures


def _read_record(record: Path, version: str | None) -> dict[str, Figures]:
    record.parent.mkdir(parents=True, exist_ok=True)
    lines = record.read_text(encoding='utf-8').splitlines() if record.is_file() else []
    header = json.dumps({'version': version})
    if not lines or lines[0] != header:
        record.write_text(f'{header}\n', encoding='utf-8')
        return {}
    results = {}
    for line in lines[1:]:
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when the run stopped
        # Not in one line: what is right of the equals sign runs first.
        name = data.pop('name')
        results[name] = Figures.from_dict(data)
    return results


class _TimeIsUp(BaseException):
    """No ``Exception``, which code that tries things out would take for an answer."""


def _prepare() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore')
    # Ctrl-C is for the process that hands out the work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure_in_time(name: str, limit: float) -> Figures:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return measure_backbone(name)
    except _TimeIsUp:
        return Figures(failed=f'it takes more than {limit:g} s')
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--source', nargs='+', choices=list(SOURCES))
    parser.add_argument('--only', default='', metavar='PATTERN',
                        help='keep the figures of the others')  # fmt: skip
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--limit', type=float, default=TIME_LIMIT, metavar='SECONDS')
    return parser.parse_args()


def main() -> None:
    from rich.progress import track

    args = parse_args()
    for name in args.source or SOURCES:
        record = ROOT / 'work_dirs' / 'catalog' / f'{name}.jsonl'
        found = update_figures(
            name,
            args.only,
            args.jobs,
            args.limit,
            None if args.only else record,
            lambda results, total, name=name: track(results, name, total),
        )
        usable = sum(model.usable for model in found.models.values())
        print(f'{name}: {usable} of {len(found.models)} can be used')
    if 'timm' in read_figures():
        (ROOT / 'docs' / 'timm.md').write_text(timm_page(read_figures()['timm']))


if __name__ == '__main__':
    sys.exit(run(main))
