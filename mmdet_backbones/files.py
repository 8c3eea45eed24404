"""Files that are there as a whole or not at all, and over nothing unasked."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, printable

# The name of a file until it is whole, with the process that writes it.
_PARTIAL = re.compile(r'\..+\.(\d+)\.partial(\.\w+)?')
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FILE, FOLDER, ABSENT = 'a file', 'a directory', 'not there'
_LONGEST_SHOWN = 300
_KINDS = (
    (stat.S_ISREG, FILE),
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, 'a pipe, not a file'),
    (stat.S_ISSOCK, 'a socket, not a file'),
    (stat.S_ISCHR, 'a device, not a file'),
    (stat.S_ISBLK, 'a device, not a file'),
)


def path_of(text: str | Path) -> Path:
    """Make a path of what a person wrote; ``~`` is their home.

    A ``~`` of nobody known is a name like any other.
    """
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def what_is(path: str | Path) -> str:
    """Say what a path leads to, without opening it.

    Returns:
        ``FILE``, ``FOLDER``, ``ABSENT``, or in words what else it is or what keeps one
        from getting there; each fits behind "is".
    """
    if not str(path):
        return 'empty'
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return 'no path: it holds a character that no name has'
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return 'a link to nothing' if os.path.islink(path) else ABSENT
        if error.errno == errno.ELOOP:
            return 'a loop of links'
        if error.errno == errno.ENAMETOOLONG:
            return f'too long for a path: {len(str(path))} characters'
        return f'out of reach: {error.strerror}'
    return next((kind for fits, kind in _KINDS if fits(mode)), 'no file')


def not_there(path: str | Path, what: str, kind: str = FILE) -> str | None:
    """Say why a file or a folder that is to be read is none.

    Args:
        path: Of it.
        what: Its name in the message, such as ``'checkpoint'``.
        kind: ``FILE`` or ``FOLDER``.

    Returns:
        The message; None if it is one.
    """
    found = what_is(path)
    if found == kind:
        return None
    named = f"{what} '{printable(str(path), _LONGEST_SHOWN)}'"
    return f'there is no {named}' if found == ABSENT else f'the {named} is {found}'


class NotWrittenError(UserError, OSError):
    """A file that cannot be written, as the disk is full or does not allow it."""

    def __init__(self, path: Path, error: OSError) -> None:
        where = f"'{printable(str(path), _LONGEST_SHOWN)}'"
        reason = error.strerror or str(error)
        if error.errno in FULL:
            reason += ': make room on the disk, or name a place on another one'
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason += ': name a place where you may write'
        super().__init__(f'{where} cannot be written: {reason}')
        self.errno = error.errno
        self.filename = str(path)

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def whole_file(path: Path, durable: bool = False, ending: str = '') -> Iterator[Path]:
    """Let a file be written under a temporary name, then give it its own.

    An interruption leaves the old file or the new one. A link in the place of
    either name is replaced, never written through.

    Args:
        path: The file; its folder is made when missing.
        durable: Whether it also outlasts a loss of power: it is on the disk before the
            old one is given up.
        ending: Of the temporary name, for libraries that tell the format by it.

    Yields:
        The temporary name, beside the file; nothing is there.

    Raises:
        NotWrittenError: If the folder or the file cannot be written; nothing of it is
            left.
    """
    # Two processes do not write into each other's.
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial{ending}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            yield partial
            if durable:
                _to_disk(partial)
            partial.replace(path)
            if durable and os.name == 'posix':  # folders cannot be opened elsewhere
                _to_disk(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise NotWrittenError(path, error) from error


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY if os.name == 'posix' else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`whole_file` was writing in processes that were killed.

    Nothing of this process may be being written there.

    Args:
        folder: Where it lies; files that another process is writing stay.
    """
    for path in folder.glob('.*.partial*'):
        match = _PARTIAL.fullmatch(path.name)
        if match is not None and not _runs(int(match[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is another process of this number; True where nobody can tell."""
    # Containers number their processes alike: the one that was killed was this one.
    if os.name != 'posix' or process == os.getpid():
        return os.name != 'posix'
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_atomically(path: Path, content: bytes | str, durable: bool = False) -> None:
    """Write a file so that an interruption leaves the old one or the new one.

    Args:
        path: The file; its folder is made when missing.
        content: What to write, text as UTF-8.
        durable: As for :func:`whole_file`.

    Raises:
        NotWrittenError: If the folder or the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path, durable) as partial, partial.open('xb') as file:
        file.write(data)


def target_problem(
    path: Path,
    endings: Sequence[str],
    force: bool,
    option: str = '-o',
    new_folder: bool = True,
) -> str | None:
    """Say why a file of some kind cannot be written, before any work is done for it.

    Args:
        path: Of the file.
        endings: Those that are allowed, the usual one first.
        force: Whether a file that is there may be replaced.
        option: Of the command line, which names the file.
        new_folder: Whether the folder is made when missing.

    Returns:
        What is wrong, and what to write instead; None if nothing is.
    """
    if not str(path).isprintable():
        return (
            f'{option} takes a name without control characters, got {str(path)!r}: '
            'name it otherwise'
        )
    found = what_is(path)
    if found not in (FILE, FOLDER, ABSENT):
        return f"{option} '{path}' is {found}: name another place"
    if path.suffix not in endings:
        near = os.path.splitext(path)[0] + endings[0]
        return (
            f"{option} must end in {' or '.join(endings)}, got '{path}': write "
            f'{option} {near}'
        )
    if found == FOLDER:
        return f"{option} names the folder '{path}': name a file in it"
    above = next(p for p in path.absolute().parents if what_is(p) != ABSENT)
    if what_is(above) != FOLDER:
        return f"{option} '{path}': '{above}' is {what_is(above)}"
    if not new_folder and not path.parent.is_dir():
        return f"{option}: there is no folder '{path.parent}': make it first"
    return already_there([path], force, option)


def already_there(paths: Iterable[Path], force: bool, option: str = '-o') -> str | None:
    """Say which files would be overwritten, and what to write; None if none would."""
    there = [f"'{path}'" for path in paths if os.path.lexists(path)]
    if force or not there:
        return None
    verb = 'is' if len(there) == 1 else 'are'
    return (
        f'{", ".join(there)} {verb} there already: write --force, or another {option}'
    )
