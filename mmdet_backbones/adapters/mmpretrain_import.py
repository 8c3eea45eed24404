"""Import mmpretrain's nets, or say why that fails and what helps."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from mmengine.utils import digit_version

from ..compat.doctor_rules import TESTED
from ..compat.hooks import AFTER_IMPORT

# The first transformers without which mmpretrain 1.2.0 can be imported, not with it.
_TRANSFORMERS = '4.53'


def import_zoo() -> ModuleType:
    """Import ``mmpretrain.models.backbones``.

    mmpretrain 1.2.0 fails to import where pycocotools and transformers >= 4.53 are both
    installed, because of its multimodal nets. They are then left out, as mmpretrain
    itself does where these packages are missing.

    Raises:
        ImportError: With the cause and the line to write.
    """
    if _stumbles_over_transformers():
        AFTER_IMPORT['mmpretrain.utils.dependency'] = _leave_multimodal_out
    try:
        return import_module('mmpretrain.models.backbones')
    except Exception as error:  # whatever its import raises, TypeError among them
        raise ImportError(_explain(error)) from error


def _leave_multimodal_out(module: ModuleType) -> None:
    module.WITH_MULTIMODAL = False  # type: ignore[attr-defined]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _stumbles_over_transformers() -> bool:
    transformers = _installed('transformers')
    return (
        transformers is not None
        and digit_version(transformers) >= digit_version(_TRANSFORMERS)
        and _installed('pycocotools') is not None
        and _installed('mmpretrain') is not None
    )


def _explain(error: Exception) -> str:
    name = 'onedl-mmpretrain' if _installed('onedl-mmengine') else 'mmpretrain'
    if find_spec('mmpretrain') is None:
        return (
            "mmpretrain's nets need mmpretrain, which is not installed: write\n"
            f'  pip install {name}=={TESTED[name]}'
        )
    said = f'{type(error).__name__}: {error}'
    if _stumbles_over_transformers():
        return (
            f'Importing mmpretrain failed ({said}). mmpretrain '
            f'{_installed("mmpretrain")} cannot be imported where pycocotools and '
            f'transformers >= {_TRANSFORMERS} are both installed (found '
            f'{_installed("transformers")}), unless one of our backbones is built '
            'before anything else imports it. Write one of\n'
            f'  pip install "transformers<{_TRANSFORMERS}"\n'
            '  pip uninstall -y transformers'
        )
    return (
        f'Importing mmpretrain failed ({said}). tools/doctor.py names combinations of '
        f'packages that do not work; the tested one is\n'
        f'  pip install {name}=={TESTED[name]}'
    )
