"""mmengine's own training checkpoints under ``torch.load(weights_only=True)``.

Since torch 2.6 that is the default, and mmengine 0.10.7 stores its message hub
beside the weights: objects of these classes and no others. Naming them keeps
every other class refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.utils import digit_version


def _statistics_method(owner: Any, name: str) -> Callable:
    """Stand in for the ``getattr`` by which a HistoryBuffer names its methods.

    Raises:
        pickle.UnpicklingError: For anything but a statistics method.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    methods = HistoryBuffer()._statistics_methods
    if owner is not HistoryBuffer or name not in methods:
        raise pickle.UnpicklingError(f'{owner!r}.{name} may not be looked up')
    return getattr(HistoryBuffer, name)


def mmengine_classes() -> list[Any]:
    """Name what a checkpoint of mmengine's Runner holds besides tensors."""
    from mmengine.logging.history_buffer import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    scalars = (np.float64, np.float32, np.int64, np.int32, np.uint32, np.bool_)
    return [
        HistoryBuffer,
        slice,
        (_statistics_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *{type(np.dtype(scalar)) for scalar in scalars},
    ]


def allow_mmengine_classes(module: ModuleType) -> None:
    """Let ``torch.load`` read :func:`mmengine_classes`; older torch needs nothing.

    Args:
        module: ``mmengine.runner.checkpoint``. In onedl-mmengine it allows nearly the
            same classes while it reads, and on leaving torch forgets them also where
            they were known before; with an empty list there is nothing to forget.
    """
    if digit_version(torch.__version__) >= digit_version('2.6'):
        torch.serialization.add_safe_globals(mmengine_classes())
        if hasattr(module, 'get_torch_safe_globals'):
            module.get_torch_safe_globals = list  # type: ignore[attr-defined]
