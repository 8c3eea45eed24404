"""Puts a data set in its place: whole or not at all, whenever the run is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import UserError
from .records import some
from .scan import read_json

TOOL = 'mmdet_backbones prepare_data'
REPORT = 'report.json'
SPLITS = ('train', 'val', 'test')
# What describes the others comes last, and goes first.
ENTRIES = (*SPLITS, 'examples.png', REPORT, 'annotations')
_OPTIONAL = ('test',)
STATE = '.prepare_data'
_NEW, _OLD = '.prepare_data_new', '.prepare_data_old'
_MAGIC = f'{TOOL}: '.encode()
# Beside what is made, for each entry that is not.
_WITHOUT = '.without_{}'
_FILLING, _PLACING, _PLACED = b'filling', b'placing', b'placed '


def problems_with(out: Path, source: Path, force: bool) -> list[str]:
    """Return why a folder cannot be written to; nothing if it can.

    What a run that was killed has left there is put in order first.
    """
    try:
        whole, origin, there = out.resolve(), source.resolve(), out.exists()
    except (OSError, RuntimeError) as error:
        # Too long a name, or links in a circle.
        return [f"-o '{out}' cannot be written: {error}"]
    if whole == origin or whole in origin.parents or origin in whole.parents:
        return [f"-o '{out}' lies in '{source}' or around it: name a folder beside it"]
    if not there and not out.is_symlink():
        near = next(parent for parent in whole.parents if parent.exists())
        return [] if near.is_dir() else [f"-o '{out}': '{near}' is a file"]
    if not out.is_dir():
        return [f"-o '{out}' is a file: move it away or name another folder"]
    unasked = force
    if os.path.lexists(out / STATE):
        try:
            with _claimed(out) as claim:
                unasked = claim.recover() or force
                if not claim.over:
                    claim.end()
        except OSError as error:
            return [f"-o '{out}' cannot be written: {error}"]
    return _in_the_way(out, unasked)


def _in_the_way(out: Path, force: bool) -> list[str]:
    there = [name for name in (*ENTRIES, _NEW, _OLD) if os.path.lexists(out / name)]
    if not there:
        return []
    listed = ', '.join(there)
    if not force:
        return [f"-o '{out}' holds {listed} already: --force replaces a data set that "
                'this command wrote, or name another folder']  # fmt: skip
    others = [listed] if not _ours(out) else _strangers(out)
    if others:
        return [f"-o '{out}' holds {some(others)}, which this command did not write: "
                'move them away or name another folder']  # fmt: skip
    return []


def _ours(out: Path) -> bool:
    try:
        return read_json(out / REPORT).get('tool') == TOOL
    except (OSError, ValueError, AttributeError):
        return False


def _strangers(out: Path) -> list[str]:
    """Return the files that somebody else put into a data set of ours."""
    ours = set()
    for split in SPLITS:
        name = f'annotations/{split}.json'
        if split in _OPTIONAL and not os.path.lexists(out / name):
            continue
        try:
            images = read_json(out / name)['images']
            ours |= {name, *(f'{split}/{image["file_name"]}' for image in images)}
        except (OSError, ValueError, KeyError, TypeError):
            return [name]
    return [
        name
        for entry in (*SPLITS, 'annotations')
        for folder, _, files in os.walk(out / entry)
        for name in (Path(folder, file).relative_to(out).as_posix() for file in files)
        if name not in ours
    ]


class _Claim:
    """The file that says how far a run has come; while it is locked, one is at work.

    Attributes:
        over: Whether the data set that is there may be replaced unasked, because the
            run that wrote it was stopped before it had ended.
    """

    def __init__(self, out: Path, file: int) -> None:
        self.out, self._file = out, file
        content = os.pread(file, 100, 0)
        if not content.startswith(_MAGIC) and content:
            raise UserError(f"-o '{out}' holds {STATE}, which this command did not "
                            'write: move it away or name another folder')  # fmt: skip
        self._phase = content[len(_MAGIC) :][: len(_FILLING)] or _FILLING
        self.over = content.endswith(b'over')

    def say(self, phase: bytes) -> None:
        """Write down, in one go, what is being done."""
        self._phase = phase
        os.pwrite(self._file, _MAGIC + phase + (b' over' if self.over else b' new.'), 0)

    def recover(self) -> bool:
        """Undo what a killed run has begun, and return whether it had placed all."""
        if self._phase == _PLACING:
            self._take_back()
        elif self._phase == _PLACED:
            self.over = True
        self._clear()
        self.say(_FILLING)
        return self.over

    def place(self) -> None:
        """Exchange the entries of the folder for those that were made."""
        new, old = self.out / _NEW, self.out / _OLD
        lacking = [name for name in ENTRIES if not (new / name).exists()]
        assert set(lacking) <= set(_OPTIONAL), new
        for name in lacking:
            (new / _WITHOUT.format(name)).touch()
        old.mkdir()
        self.say(_PLACING)
        try:
            for name in reversed(ENTRIES):
                if os.path.lexists(self.out / name):
                    (self.out / name).rename(old / name)
            for name in ENTRIES:
                if name not in lacking:
                    (new / name).rename(self.out / name)
        except BaseException:
            self._take_back()
            self.say(_FILLING)
            raise
        self.say(_PLACED)

    def _take_back(self) -> None:
        new, old = self.out / _NEW, self.out / _OLD
        for name in ENTRIES:
            # All that were made were there, so one that is not has been placed.
            made = not (new / _WITHOUT.format(name)).exists()
            placed = made and not os.path.lexists(new / name)
            if placed and os.path.lexists(self.out / name):
                (self.out / name).rename(new / name)
        for name in ENTRIES:
            if os.path.lexists(old / name):
                (old / name).rename(self.out / name)

    def _clear(self) -> None:
        for name in (_NEW, _OLD):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.out / name)

    def end(self) -> None:
        """Leave nothing but the data set."""
        self._clear()
        (self.out / STATE).unlink()


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[_Claim]:
    """Open the state file of a folder and lock it.

    Raises:
        OSError: If that cannot be done.
        UserError: If another run is at work, or the file is somebody else's.
    """
    path = out / STATE
    flags = os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0)
    file = os.open(path, flags | getattr(os, 'O_NONBLOCK', 0), 0o666)
    try:
        _lock(file)
        status, there = os.fstat(file), os.stat(path, follow_symlinks=False)
        if status.st_ino != there.st_ino:
            raise BlockingIOError
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"-o '{out}' holds {STATE}, which is no file")
        yield _Claim(out, file)
    except (BlockingIOError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and out.is_dir():
            raise
        raise UserError(f"-o '{out}': another run is writing to it") from error
    finally:
        os.close(file)


def _lock(file: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # Some network drives have no locks; it only keeps two runs apart.
        return


def write(out: Path, fill: Callable[[Path], None], force: bool) -> None:
    """Fill a hidden folder in the wanted one and put what it holds in its place.

    A run that is killed leaves the old data set or the new one, and a state file that
    tells the next run how to go on.

    Args:
        out: The wanted folder. What ``ENTRIES`` does not name stays in it.
        fill: Writes the entries into the folder it is given.
        force: Whether a data set that is there is replaced.

    Raises:
        UserError: If it cannot be written; what was there is there again.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _claimed(out) as claim:
            unasked = claim.recover() or force
            try:
                problems = _in_the_way(out, unasked)
                if problems:
                    raise UserError('; '.join(problems))
                (out / _NEW).mkdir()
                fill(out / _NEW)
                claim.place()
            except BaseException:
                claim.recover()
                if not claim.over:
                    claim.end()
                raise
            claim.end()
    except OSError as error:
        _forget(out, made)
        raise UserError(f"-o '{out}' cannot be written: {error}") from error
    except BaseException:
        _forget(out, made)
        raise


def _forget(out: Path, made: bool) -> None:
    if made:
        with contextlib.suppress(OSError):
            out.rmdir()
