"""What the adapters of all libraries say of a net."""

from __future__ import annotations

from dataclasses import dataclass


class RefusedError(ValueError):
    """A net that cannot be a backbone."""


def last_line(error: BaseException) -> str:
    """Name an error in one line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


@dataclass(frozen=True)
class SizeRule:
    """Which images a net takes.

    Attributes:
        multiple: Height and width are padded to multiples of it.
        fixed: The one (height, width) the net takes, or None.
    """

    multiple: int = 1
    fixed: tuple[int, int] | None = None
