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
from importlib.metadata import version
from typing import Any, NoReturn

_INSTALL = """\
{name} exists only in compiled mmcv, and mmdet_backbones has no substitute for it.
Build mmcv with its operators in place of what is installed (a C++ compiler, about
30 CPU minutes; for CUDA also its toolkit and FORCE_CUDA=1):
  pip uninstall -y mmcv-lite
  MMCV_WITH_OPS=1 pip install "mmcv==2.1.0" --no-build-isolation --no-cache-dir
or, with the onedl packages:
  pip install onedl-mmcv --force-reinstall --no-deps --no-binary onedl-mmcv \
--no-build-isolation --no-cache-dir
If the build stops at "C++20 or later compatible compiler is required" (torch 2.14
does), fetch the source with pip download --no-deps --no-binary :all:, write
-std=c++20 for -std=c++17 in its setup.py, and pip install that folder instead."""


def get_compiler_version() -> str:
    """Name what stands in for a compiled mmcv (mmcv.ops.get_compiler_version)."""
    return f'none (mmdet_backbones on torchvision {version("torchvision")})'


def get_compiling_cuda_version() -> str:
    """Answer as an mmcv built without CUDA (mmcv.ops.get_compiling_cuda_version)."""
    return 'not available'


def missing_operator(name: str) -> Callable[..., NoReturn]:
    """Answer for an operator of ``mmcv._ext`` that has no substitute.

    Made to be a module's ``__getattr__``.

    Args:
        name: Name asked of the module.

    Returns:
        A function that raises NotImplementedError with what to install.

    Raises:
        AttributeError: If the name is private. No operator has such a name, and
            Python itself probes modules for them.
    """
    if name.startswith('_'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def operator(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(_INSTALL.format(name=f'mmcv._ext.{name}'))

    operator.__name__ = operator.__qualname__ = name
    return operator


def build_namespace() -> dict[str, Callable[..., Any]]:
    """Return the names of a module that can stand in for ``mmcv._ext``.

    torchvision is imported by the first operator that needs it.

    Returns:
        Operator functions by name, and a module ``__getattr__`` that answers
        every other operator name with a function that raises when called.
    """
    from . import (
        attention,
        boxes,
        carafe,
        deform_conv,
        focal_loss,
        masked_conv,
        roi_pooling,
        sync_bn,
    )

    operators: list[Callable[..., Any]] = [
        get_compiler_version,
        get_compiling_cuda_version,
        *attention.OPERATORS,
        *boxes.OPERATORS,
        *carafe.OPERATORS,
        *deform_conv.OPERATORS,
        *focal_loss.OPERATORS,
        *masked_conv.OPERATORS,
        *roi_pooling.OPERATORS,
        *sync_bn.OPERATORS,
    ]
    namespace = {operator.__name__: operator for operator in operators}
    namespace['__getattr__'] = missing_operator
    return namespace
