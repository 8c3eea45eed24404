"""What the environment reports of mmengine, mmcv and mmdet ask of ``mmcv._ext``."""

from __future__ import annotations

from importlib.metadata import version


def get_compiler_version() -> str:
    """Name what stands in for a compiled mmcv (mmcv.ops.get_compiler_version)."""
    return f'none (mmdet_backbones on torchvision {version("torchvision")})'


def get_compiling_cuda_version() -> str:
    """Answer as an mmcv built without CUDA (mmcv.ops.get_compiling_cuda_version)."""
    return 'not available'


OPERATORS = (get_compiler_version, get_compiling_cuda_version)
