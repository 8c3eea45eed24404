"""Read files in another process, which may hang, die or grow without harm."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

from mmdet_backbones.weights import CheckpointError, read_checkpoint
from mmdet_backbones.weights.reading.reader import read_saved, read_shapes

SECONDS = 10
MEMORY = 1 << 30
_READERS = {
    'read': read_checkpoint,
    'shapes': read_shapes,
    'saved': lambda source: read_saved(Path(source), source),
}


class Outcome(NamedTuple):
    """What became of a reading.

    Attributes:
        kind: ``'read'``, ``'refused'``, or what must not be: ``'error'``,
            ``'died'``, ``'hung'``.
        message: Of the error.
        seconds: That it took.
        memory: Bytes at most, above what the process had before.
    """

    kind: str
    message: str = ''
    seconds: float = 0.0
    memory: int = 0


def _status(key: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(n.split()[1]) * 1024 for n in lines if n.startswith(f'{key}:'))


def _serve(pipe: Any) -> None:
    limit = _status('VmSize') + 3 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        how, source = pipe.recv()
        Path('/proc/self/clear_refs').write_text('5')
        before, start = _status('VmRSS'), time.perf_counter()
        try:
            _READERS[how](source)
            kind, message = 'read', ''
        except CheckpointError as error:
            kind, message = 'refused', str(error)
        except BaseException as error:
            kind, message = 'error', f'{type(error).__name__}: {str(error)[:500]}'
        seconds = time.perf_counter() - start
        pipe.send(Outcome(kind, message, seconds, _status('VmHWM') - before))


class ReadingWorker:
    """A process that reads one file after another, and is replaced where it fails."""

    def __init__(self) -> None:
        self._process: Any = None

    def read(self, source: str | os.PathLike, how: str = 'read') -> Outcome:
        """Read a file, by ``read_checkpoint``, ``read_shapes`` or ``read_saved``."""
        if self._process is None:
            self._start()
        self._pipe.send((how, str(source)))
        try:
            if self._pipe.poll(SECONDS):
                return self._pipe.recv()
            outcome = Outcome('hung')
        except EOFError:
            outcome = Outcome('died')
        self.stop()
        return outcome

    def _start(self) -> None:
        context = multiprocessing.get_context('fork')
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
