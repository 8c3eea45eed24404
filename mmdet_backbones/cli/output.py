"""What a command says: JSON alone on stdout where that is asked for, exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_real: TextIO | None = None


@contextmanager
def json_alone(wanted: bool) -> Iterator[None]:
    """Keep stdout for :func:`print_json`; all else that is printed goes to stderr.

    Args:
        wanted: Whether to; if not, nothing changes.
    """
    global _real
    if not wanted:
        yield
        return
    printed, kept = sys.stdout, None
    printed.flush()
    if _descriptor(printed) == 1:
        # Libraries in C and started processes write to the descriptor.
        kept = os.dup(1)
        os.dup2(2, 1)
        _real = os.fdopen(os.dup(kept), 'w', encoding='utf-8')
    else:
        _real = printed
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = printed
        if kept is not None:
            _real.close()
            os.dup2(kept, 1)
            os.close(kept)
        _real = None


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def stdout_of_others() -> TextIO | None:
    """Return what started processes, which print the JSON, have as stdout."""
    return _real


def print_json(data: Any) -> None:
    """Write what ``--json`` asks for."""
    stream = _real or sys.stdout
    stream.write(f'{json.dumps(data, indent=1)}\n')
    stream.flush()


def tell_error(message: str) -> None:
    """Tell an error to people on stderr, and under ``--json`` to programs as well."""
    sys.stderr.write(f'error: {message}\n')
    if _real is not None:
        print_json(dict(error=message))


def console(width_of_pipes: int = 200) -> Any:
    """Return a rich console for tables whose texts are no markup.

    Args:
        width_of_pipes: Columns where there is no terminal: a pipe has no width, and
            lines are as long as they need to be.
    """
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else width_of_pipes,
        highlight=False,
        markup=False,
        emoji=False,
    )
