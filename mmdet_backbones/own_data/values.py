"""Reads a value by what it means, whatever type a tool wrote it with, or refuses it."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

# Python's own reading takes 1_0, digits of every script, and the word 'infinity'.
_NUMBER = re.compile(r'[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})(e[+-]?\d{1,3})?',
                     re.ASCII | re.IGNORECASE)  # fmt: skip
_FLAGS = {
    **dict.fromkeys(('0', 'false', 'no', ''), False),
    **dict.fromkeys(('1', 'true', 'yes'), True),
}


def number(value: Any) -> float:
    """Return a finite number, given as one or as text.

    Raises:
        ValueError: If it is none; a truth value is none.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError('not a number')
    try:
        found = float(value)
    except OverflowError as error:
        raise ValueError('too large a number') from error
    if not math.isfinite(found):
        raise ValueError('not a finite number')
    return found


def whole(value: Any) -> int:
    """Return a whole number, given as 7, 7.0, '7' or '7.0'.

    Raises:
        ValueError: If it is none.
    """
    found = number(value)
    if not found.is_integer():
        raise ValueError('not a whole number')
    try:
        # A float does not hold every large number.
        return value if isinstance(value, int) else int(value)
    except ValueError:
        return int(found)


def key(value: Any) -> int | str:
    """Return what an entry is referred to by: a whole number, or a word.

    Raises:
        ValueError: If it is neither.
    """
    try:
        return whole(value)
    except ValueError:
        if isinstance(value, str):
            return text(value)
        raise


def flag(value: Any) -> bool:
    """Return a truth value, given as one, as 0 or 1, or as a word; None is no.

    Raises:
        ValueError: If it is something else.
    """
    if value is None:
        return False
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    if not isinstance(value, bool) and number(value) not in (0, 1):
        raise ValueError('neither 0 nor 1')
    return bool(number(int(value) if isinstance(value, bool) else value))


def text(value: Any) -> str:
    """Return a name, in the one spelling that Unicode has for it.

    Raises:
        ValueError: If it is neither text nor a number, or empty.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError('not a name')
    found = composed(str(value)).strip()
    if not found:
        raise ValueError('an empty name')
    # Half of a letter: what prints or logs it would stop.
    if any('\ud800' <= letter <= '\udfff' for letter in found):
        raise ValueError('not a name')
    return found


def composed(name: str) -> str:
    """Return text with its accents as part of the letters, as most systems write it."""
    return unicodedata.normalize('NFC', name)


def size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size that an annotation gives; None if it gives none.

    Raises:
        ValueError: If it is not two whole numbers above 0.
    """
    if width is None and height is None:
        return None
    found = whole(width), whole(height)
    if min(found) <= 0:
        raise ValueError('not a size')
    return found
