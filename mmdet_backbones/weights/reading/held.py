"""A file as it was when it was opened, whatever becomes of it meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import CheckpointError, DamagedFileError

# Windows has none.
with contextlib.suppress(ImportError):
    import fcntl

# Below this much nobody asks where the bytes of a file are.
_SMALL = 1 << 26
_SPARSE = 8
# After 45 seconds Linux lets them no longer wait.
_LONGEST_LEASE = 4 << 30
_MEMORY = Path('/proc/meminfo')

State = tuple[int, int, int, int]


class Held(NamedTuple):
    """A file that is being read.

    Attributes:
        path: Where to read it: a copy in memory, or the file.
        name: As it is called.
        state: Of the file, see :func:`state_of`.
    """

    path: Path
    name: str
    state: State

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.state[2]


def state_of(file: BinaryIO) -> State:
    """Tell an open file from all others, and from itself after a change."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def look(path: Path) -> Iterator[Held]:
    """Open a file of which only names and shapes are read."""
    with path.open('rb') as file:
        yield Held(path, path.name, state_of(file))


@contextmanager
def hold(path: Path, source: str, briefly: bool = False) -> Iterator[Held]:
    """Keep a file as it is from before anything of it is believed.

    A mapped file that becomes shorter ends the process without a message when it is
    touched, and one that is written to is another one than was looked at. So it is
    copied into memory; where the system has no files in memory, it is read itself.

    Args:
        path: Of the file.
        source: What the user wrote, for messages.
        briefly: Whether its content is of no use after the block. Then it need not be
            copied where the system lets others wait who want to write to it.

    Raises:
        CheckpointError: If it does not fit into the memory.
        DamagedFileError: If it has holes or changes while it is copied.
        OSError: If it cannot be read.
    """
    with path.open('rb') as file:
        held = Held(path, path.name, state_of(file))
        _check_holes(file, source)
        copy = None
        if not (briefly and _lease(file)):
            _check_room(held.size, source)
            copy = _file_in_memory()
        if copy is None or not _fill(copy, file, held.size):
            yield held
            return
        try:
            if state_of(file) != held.state:
                raise DamagedFileError(
                    f"'{source}' was changed while it was read: wait until what "
                    'writes it is done, and start again'
                )
            yield held._replace(path=Path(f'/proc/self/fd/{copy}'))
        finally:
            os.close(copy)


def _lease(file: BinaryIO) -> bool:
    """Let everybody wait who wants to write to a file, until it is closed.

    Linux gives that for the files of the user, if nobody is writing to them.
    """
    try:
        # The signal tells that somebody waits; the usual one would end the process.
        fcntl.fcntl(file.fileno(), fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (OSError, AttributeError, NameError):
        return False
    return os.fstat(file.fileno()).st_size <= _LONGEST_LEASE


def _file_in_memory() -> int | None:
    if not hasattr(os, 'memfd_create') or not Path('/proc/self/fd').is_dir():
        return None
    try:
        return os.memfd_create('weights', os.MFD_CLOEXEC)
    except OSError:
        return None


def _fill(copy: int, file: BinaryIO, size: int) -> bool:
    """Copy a file; False where a limit for files forbids it, and the copy is closed."""
    done = 0
    try:
        while done < size and (count := os.sendfile(copy, file.fileno(), done, size)):
            done += count
        return True
    except OSError:
        pass  # some file systems do not give to another file directly
    try:
        os.ftruncate(copy, 0)
        with open(copy, 'wb', closefd=False) as target:
            shutil.copyfileobj(file, target)
        return True
    except OSError:
        os.close(copy)
        return False


def _check_holes(file: BinaryIO, source: str) -> None:
    """Refuse a file that claims more than there is on the disk."""
    status = os.fstat(file.fileno())
    size, there = status.st_size, getattr(status, 'st_blocks', 0) * 512
    # Some network disks say 0 of every file.
    if size <= _SMALL or not 0 < there * _SPARSE < size or not hasattr(os, 'SEEK_HOLE'):
        return
    hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    if hole < size:
        raise DamagedFileError(
            f"'{source}' has holes: of its {size} bytes {there} are on the disk. The "
            'download or the copy of it is not complete, get it again'
        )


def _check_room(size: int, source: str) -> None:
    """Refuse a file that is larger than the memory."""
    free = _free_memory()
    if free is not None and size > free:
        raise CheckpointError(
            f"'{source}' has {size / 1e9:.1f} GB, of memory {free / 1e9:.1f} GB are "
            'free: read it on a larger machine, and save only what the net needs: '
            "torch.save(checkpoint['state_dict'], path)"
        )


def _free_memory() -> int | None:
    """Bytes that can be had, None where the system does not say."""
    try:
        lines = _MEMORY.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith('MemAvailable:')]
    return int(found[0]) * 1024 if found else None
