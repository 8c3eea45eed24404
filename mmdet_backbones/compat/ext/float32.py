"""Scalars as the C++ side sees them."""

from __future__ import annotations

import ctypes


def round_to_float32(value: float) -> float:
    """Round a Python float the way a C++ ``float`` argument does.

    Every scalar of the kernels of mmcv is a ``float``, those of torchvision are
    ``double``. An overlap of exactly float32(0.6) is over 0.6 but not over
    float32(0.6).
    """
    return ctypes.c_float(value).value
