"""torchvision's kernels, and scalars as those of mmcv take them."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor


def torchvision_kernels() -> Any:
    """Return ``torch.ops.torchvision``, which torchvision fills when it is imported.

    It is imported at the first call: that takes a second.
    """
    import torchvision  # noqa: F401

    return torch.ops.torchvision


def round_to_float32(value: float) -> float:
    """Round a Python float the way a C++ ``float`` argument does.

    Every scalar of the kernels of mmcv is a ``float``, those of torchvision are
    ``double``. An overlap of exactly float32(0.6) is over 0.6 but not over
    float32(0.6).
    """
    return ctypes.c_float(value).value


def in_float32(*tensors: Tensor, half: bool = False) -> tuple[Tensor, ...]:
    """Bring bfloat16, which no kernel of torchvision has, to float32.

    Args:
        tensors: Arguments of a kernel, indices among them stay what they are.
        half: Bring float16 there too.
    """
    low = (torch.bfloat16, torch.half) if half else (torch.bfloat16,)
    return tuple(x.float() if x.dtype in low else x for x in tensors)
