"""Texts of figures, in lines that have room."""

from __future__ import annotations

import textwrap


def fitted(text: str, inches: float, fontsize: float) -> str:
    """Break the lines of a text so that they have room in a width.

    Args:
        text: Lines, each of which is broken for itself.
        inches: Width that there is.
        fontsize: In points.
    """
    # Words in matplotlib's font are seldom wider than this share of their height.
    most = int(inches * 72 / (0.6 * fontsize))
    lines = [line for whole in text.splitlines() for line in textwrap.wrap(whole, most)]
    return '\n'.join(lines)
