"""Boxes in very many images: workers of a Ray cluster find them, one process writes.

What is found, and how it is written, is that of one process: a worker runs the same
:class:`~.running.Prediction` over some images that follow each other.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from ..files import whole_file
from ..weights.reading.download import sha256_of
from .exported import exported_folder
from .options import PredictOptions
from .parquet import write_parquet
from .running import Prediction, Summary, Track, checked_sources, wanted_labels
from .shards import Shard, ShardFolder, images_of_one
from .sources import Sources
from .tables import JsonLines

# A worker that dies with the same images again and again does so because of them.
_TRIES = 3


class ManyImages:
    """One prediction, begun or gone on with.

    The detector is loaded here once, on the processor, so that a mistake is told before
    there is a cluster.

    Args:
        options: What is wanted.
        tell: Gets what is wrong with an image, when it is.

    Raises:
        UserError: If it cannot be done, or another run has left its shards.
    """

    def __init__(
        self,
        options: PredictOptions,
        tell: Callable[[str], Any] = lambda text: None,
    ) -> None:
        self._options, self._tell = options, tell
        self._sources = checked_sources(options)
        assert options.out is not None
        self._out = options.out
        detector = _on_processor(options).load()
        wanted_labels(detector.names, options.classes)
        self._folder = ShardFolder(options.out)
        count = len(self._sources.images)
        self._step = images_of_one(count, options.batch)
        self._count = -(-count // self._step)
        self._folder.begin(_plan(options, self._sources), options.force)
        self._summary = Summary()
        for text in detector.notes:
            self._summary.notes.append(text)
            tell(text)
        self._left = [number for number in range(self._count) if not self._read(number)]

    @property
    def left(self) -> int:
        """Number of images that nobody has looked at."""
        return sum(len(self._images(number)) for number in self._left)

    def run(
        self,
        workers: int | None = None,
        track: Track = lambda items, total, name: items,
    ) -> Summary:
        """Find the boxes in what is left, and make one file of all.

        Args:
            workers: How many find boxes at a time; left out, one on each GPU, or core.
            track: Shows progress over images.

        Raises:
            UserError: If a worker cannot do it, or a file cannot be written.
        """
        summary, start = self._summary, time.perf_counter()
        before = summary.images
        try:
            if self._left:
                for _ in track(self._looked_at(workers), self.left, 'images'):
                    pass
        except KeyboardInterrupt:
            summary.stopped = True
        summary.seconds = time.perf_counter() - start
        summary.timed = summary.images - before
        if not summary.stopped:
            self._finish()
            summary.written.append(self._out)
        return summary

    def _finish(self) -> None:
        lines = self._folder.lines(self._count)
        if self._options.format == 'parquet':
            write_parquet(self._out, lines)
        else:
            with whole_file(self._out) as partial, partial.open('xb') as file:
                file.writelines(text.encode() for text in lines)
        self._folder.remove()

    def _looked_at(self, workers: int | None) -> Iterator[None]:
        """Yield once for each image that a worker has looked at."""
        for number, text in _found(self._options, self._rows(), workers):
            # Before it counts: what is counted is on the disk.
            self._folder.add(number, text)
            self._read(number)
            yield from (None for _ in self._images(number))

    def _rows(self) -> list[dict[str, Any]]:
        root = os.fsencode(self._sources.root)
        return [
            dict(number=n, images=[os.fsencode(p) for p in self._images(n)], root=root)
            for n in self._left
        ]

    def _images(self, number: int) -> tuple[Path, ...]:
        return self._sources.images[number * self._step : (number + 1) * self._step]

    def _read(self, number: int) -> bool:
        """Count what is in a shard; tell whether it is there."""
        shard = self._folder.read(number)
        if shard is None:
            return False
        self._summary.images += shard.images
        self._summary.boxes.update(shard.boxes)
        self._summary.problems += shard.problems
        for problem in shard.problems:
            self._tell(problem)
        return True


def _on_processor(options: PredictOptions) -> PredictOptions:
    # An exported detector is there already, and says so if it is asked for more.
    exported = exported_folder(options.model) is not None
    return options if exported else replace(options, device='cpu')


def _plan(options: PredictOptions, sources: Sources) -> dict[str, Any]:
    """Everything that decides over the results."""
    names = '\0'.join(map(str, sources.images)).encode('utf-8', 'surrogateescape')
    return dict(
        version=__version__,
        images=len(sources.images),
        sha256_of_names=sha256(names).hexdigest(),
        model=options.model,
        sha256_of_weights=_weights(options),
        threshold=options.lowest,
        classes=None if options.classes is None else sorted(options.classes),
        batch=options.batch,
        tile=options.tile,
        overlap=options.overlap if options.tile else None,
        fast=options.fast,
    )


def _weights(options: PredictOptions) -> str:
    folder = exported_folder(options.model)
    if folder is not None:
        # It says the hashes of all the others.
        return sha256_of(folder / 'detector.json')
    from .locating import find_trained

    trained = find_trained(options.model, options.checkpoint)
    text = str(trained.config.to_dict()).encode()
    path = Path(trained.checkpoint)
    weights = sha256_of(path) if path.is_file() else trained.checkpoint
    return sha256(text + weights.encode()).hexdigest()


class BoxWorker:
    """Holds the detector, in a process of a cluster.

    Args:
        options: What is wanted.
        folder: In which the command was written.
        threads: To compute on.
    """

    def __init__(self, options: PredictOptions, folder: str, threads: int) -> None:
        self._error: str | None = None
        self._options = options
        try:
            # What a person writes is relative to where that was.
            os.chdir(folder)
            self._detector = options.load(threads)
            self._wanted = wanted_labels(self._detector.names, options.classes)
        except (UserError, OSError, RuntimeError) as error:
            self._error = f'{socket.gethostname()}: {error}'

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Find the boxes in the images of one row."""
        if self._error is not None:
            return dict(number=row['number'], text='', error=self._error)
        try:
            text = self._find(row).to_text()
        except UserError as error:
            return dict(number=row['number'], text='', error=str(error))
        return dict(number=row['number'], text=text, error='')

    def _find(self, row: dict[str, Any]) -> Shard:
        images = tuple(Path(os.fsdecode(name)) for name in row['images'])
        sources = Sources(images, (), Path(os.fsdecode(row['root'])))
        lines: list[str] = []
        table, summary = _Collected(JsonLines(lines.append)), Summary()
        prediction = Prediction(
            self._options, self._detector, self._wanted, table, None, summary, _nobody
        )
        prediction.all(sources, lambda items, *_: items)
        return Shard(''.join(lines), summary.images, summary.boxes, summary.problems)


def _nobody(text: str) -> None:
    """The problems are in the summary."""


class _Collected:
    """A table that stays in memory."""

    left = None

    def __init__(self, table: JsonLines) -> None:
        self.add = table.add

    def close(self) -> list[Path]:
        return []

    def leave(self) -> None:
        """There is no file."""


def _found(
    options: PredictOptions, rows: list[dict[str, Any]], workers: int | None
) -> Iterator[tuple[int, str]]:
    """Yield number and text of shards, as they get ready.

    Raises:
        UserError: If a worker cannot do it.
    """
    import ray.data
    from ray.exceptions import RayError

    worker: Any = BoxWorker
    share = _share(options, workers)
    # More would take memory, and wait.
    share['compute'] = ray.data.ActorPoolStrategy(size=min(share['compute'], len(rows)))
    threads = int(share['num_cpus'])
    _be_quiet()
    # A block for each, since only whole blocks come back.
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        worker,
        fn_constructor_args=(options, os.getcwd(), threads),
        **share,
        **_tries(),
    )
    try:
        for row in found.iter_rows():
            if row['error']:
                raise UserError(row['error'])
            yield row['number'], row['text']
    except RayError as error:
        raise UserError(
            f'a worker was lost: {str(error).strip().splitlines()[-1]}. The same '
            'command goes on with what is left; if it ends so again, name fewer '
            '--workers, which need less memory'
        ) from error


def _tries() -> dict[str, Any]:
    """End what would be tried for ever, where Ray takes a number of times."""
    import warnings

    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    # Until 2.64.
    if 'ray_remote_args' not in signature(ray.data.Dataset.map).parameters:
        return {}
    warnings.simplefilter('ignore', RayDeprecationWarning)
    return dict(max_restarts=-1, max_task_retries=_TRIES)


def _share(options: PredictOptions, workers: int | None) -> dict[str, Any]:
    """What each worker gets of the cluster, and how many there are."""
    import ray

    alive = [node['Resources'] for node in ray.nodes() if node['Alive']]
    cpus, gpus = (int(sum(n.get(k, 0) for n in alive)) for k in ('CPU', 'GPU'))
    if options.device == 'cuda' and not gpus:
        raise UserError('--device cuda: the cluster has no GPU: write --device cpu')
    exported = exported_folder(options.model) is not None
    on_gpus = bool(gpus) and options.device != 'cpu' and not exported
    most, what = (gpus, 'GPU') if on_gpus else (cpus, 'core')
    count = workers or most
    if count > most or not most:
        raise UserError(
            f'--workers {count}: the cluster has {most} {what}{"s" * (most != 1)}, one '
            f'for each worker: write --workers {most or "N on a larger cluster"}'
        )
    # No worker has the cores of two machines.
    widest = min((int(n['CPU']) for n in alive if n.get('CPU', 0) >= 1), default=1)
    return dict(
        compute=count,
        num_cpus=max(1, min(cpus // count, widest)),
        **(dict(num_gpus=1) if on_gpus else {}),
    )


def _be_quiet() -> None:
    """Leave the terminal to the bar of images, and to messages."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ('ray.data', 'ray.data._internal'):
        logging.getLogger(name).setLevel(logging.ERROR)
