"""Files that are there as a whole or not at all, and over nothing unasked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Let a file be written under a temporary name, then give it its own.

    An interruption leaves the old file or the new one. A link in the place of
    either name is replaced, never written through.

    Args:
        path: The file; its folder is made when missing.

    Yields:
        The temporary name, beside the file; nothing is there.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes do not write into each other's.
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that an interruption leaves the old one or the new one.

    Args:
        path: The file; its folder is made when missing.
        content: What to write, text as UTF-8.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path) as partial, partial.open('xb') as file:
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
    if path.suffix not in endings:
        near = os.path.splitext(path)[0] + endings[0]
        return (
            f"{option} must end in {' or '.join(endings)}, got '{path}': write "
            f'{option} {near}'
        )
    try:
        if path.is_dir():
            return f"{option} names the folder '{path}': name a file in it"
        above = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:  # of a name that is too long, or a folder that is closed
        return f'{option} cannot be written: {error}'
    if not above.is_dir():
        return f"{option} '{path}': '{above}' is a file"
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
