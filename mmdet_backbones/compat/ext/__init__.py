"""The compiled operators of mmcv, served from torchvision and plain torch.

``mmcv.ops`` asks one compiled module, ``mmcv._ext``, for all of its kernels.
mmcv-lite and onedl-mmcv install without it. This package answers in its place:
the same names, the same keyword arguments, results written into the tensors
that the caller passes in, on the CPU and on CUDA, forward and backward.

A kernel nobody reaches from a detector of MMDetection has no substitute; its
name is there, so that ``import mmcv.ops`` works, and calling it says what to
install.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def build_namespace() -> dict[str, Callable[..., Any]]:
    """Return the names of a module that can stand in for ``mmcv._ext``.

    torchvision is imported by the first operator that needs it.

    Returns:
        Operator functions by name, and a module ``__getattr__`` that answers
        every other operator name with a function that raises when called.
    """
    from mmdet_backbones.compat.ext import (
        attention,
        carafe,
        deform_conv,
        deform_roi_pool,
        focal_loss,
        info,
        masked_conv,
        missing,
        nms,
        overlaps,
        roi_align,
        roi_pool,
        sync_bn,
    )

    groups = (
        attention.OPERATORS,
        carafe.OPERATORS,
        deform_conv.OPERATORS,
        deform_roi_pool.OPERATORS,
        focal_loss.OPERATORS,
        info.OPERATORS,
        masked_conv.OPERATORS,
        nms.OPERATORS,
        overlaps.OPERATORS,
        roi_align.OPERATORS,
        roi_pool.OPERATORS,
        sync_bn.OPERATORS,
    )
    namespace: dict[str, Callable[..., Any]] = {
        operator.__name__: operator for group in groups for operator in group
    }
    namespace['__getattr__'] = missing.missing_operator
    return namespace
