"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that an interruption leaves the old one or the new one.

    Args:
        path: The file; its folder is made when missing.
        content: What to write.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that the next run replaces what an interrupted one left.
    partial = path.with_name(f'{path.name}.partial')
    partial.write_bytes(content)
    partial.replace(path)


def write(path: Path, text: str, force: bool) -> None:
    """Write a file under a temporary name, then give it its own.

    Args:
        path: Of the file; folders are made.
        text: All of it.
        force: Whether a file that is there is replaced.

    Raises:
        UserError: If it is there and ``force`` is not set.
    """
    check_target(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix='.swap-', suffix='.py')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as file:
            file.write(text)
        # As umask has it for new files, which mkstemp does not ask.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_target(path: Path, force: bool) -> None:
    """Refuse a file that is there, or that is no Python file.

    Raises:
        UserError: With what to write instead.
    """
    if path.suffix != '.py':
        raise UserError(f"-o must name a .py file, got '{path}': write -o {path}.py")
    if path.is_dir():
        raise UserError(f"-o names the folder '{path}': write -o {path / 'swapped.py'}")
    if path.exists() and not force:
        raise UserError(f"'{path}' is there already: write --force, or another -o")
