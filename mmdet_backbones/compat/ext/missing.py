"""Operators without a substitute: present by name, an error when called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

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
