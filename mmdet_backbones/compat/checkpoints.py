"""mmengine's own training checkpoints under ``torch.load(weights_only=True)``.

Since torch 2.6 that is the default, and mmengine 0.10.7 stores its message hub
beside the weights: objects of these classes and no others. Naming them keeps
every other class refused.
"""

from __future__ import annotations

import numpy as np
import torch


def mmengine_classes() -> list[type | object]:
    """Name the exact classes that a checkpoint of mmengine's Runner holds."""
    from mmengine.logging.history_buffer import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    scalars = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *{type(np.dtype(scalar)) for scalar in scalars},
    ]


def allow_mmengine_classes() -> None:
    """Let ``torch.load`` read :func:`mmengine_classes`; older torch needs nothing."""
    add_safe_globals = getattr(torch.serialization, 'add_safe_globals', None)
    if add_safe_globals is not None:
        add_safe_globals(mmengine_classes())
