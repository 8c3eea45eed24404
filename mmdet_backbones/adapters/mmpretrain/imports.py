"""Import mmpretrain's nets, or say why that fails and what helps."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ...compat.doctor.rules import TESTED
from ...compat.multimodal import TRANSFORMERS, installed, stumbles_over_transformers


def import_zoo() -> ModuleType:
    """Import ``mmpretrain.models.backbones``.

    Raises:
        ImportError: With the cause and the line to write.
    """
    try:
        return import_module('mmpretrain.models.backbones')
    except Exception as error:  # whatever its import raises, TypeError among them
        raise ImportError(_explain(error)) from error


def _explain(error: Exception) -> str:
    name = 'onedl-mmpretrain' if installed('onedl-mmengine') else 'mmpretrain'
    if find_spec('mmpretrain') is None:
        return (
            "mmpretrain's nets need mmpretrain, which is not installed: write\n"
            f'  pip install {name}=={TESTED[name]}'
        )
    said = f'{type(error).__name__}: {error}'
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition('.')[0]
        return (
            f'Importing mmpretrain failed ({said}). It needs {missing}, which is not '
            f'installed: write\n  pip install {missing.replace("_", "-")}'
        )
    if stumbles_over_transformers():
        return (
            f'Importing mmpretrain failed ({said}). mmpretrain '
            f'{installed("mmpretrain")} cannot be imported where pycocotools and '
            f'transformers >= {TRANSFORMERS} are both installed (found '
            f'{installed("transformers")}) and its multimodal nets are imported. '
            'Import mmdet_backbones before it, or write one of\n'
            f'  pip install "transformers<{TRANSFORMERS}"\n'
            '  pip uninstall -y transformers'
        )
    return (
        f'Importing mmpretrain failed ({said}). tools/doctor.py names combinations of '
        f'packages that do not work; the tested one is\n'
        f'  pip install {name}=={TESTED[name]}'
    )
