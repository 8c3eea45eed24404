"""Let mmpretrain be imported beside a transformers that is newer than it knows."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from mmengine.utils import digit_version

# The first one beside which mmpretrain 1.2.0, and onedl-mmpretrain 1.3.6, cannot be
# imported.
TRANSFORMERS = '4.53'


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_mmpretrain() -> str | None:
    """Return the version of mmpretrain, of whichever family, or None."""
    return installed('mmpretrain') or installed('onedl-mmpretrain')


def stumbles_over_transformers() -> bool:
    """Tell whether the multimodal nets of mmpretrain break its import here.

    They are imported where pycocotools and transformers are both installed, and fail
    with transformers >= 4.53. mmdet imports mmpretrain, and fails with it.
    """
    transformers = installed('transformers')
    if transformers is None:
        return False
    return (
        digit_version(transformers) >= digit_version(TRANSFORMERS)
        and installed('pycocotools') is not None
        and installed_mmpretrain() is not None
    )


def leave_multimodal_out(dependency: ModuleType) -> None:
    """Do without the multimodal nets, as mmpretrain does where packages are missing.

    Args:
        dependency: ``mmpretrain.utils.dependency``, just imported.
    """
    if stumbles_over_transformers():
        dependency.WITH_MULTIMODAL = False  # type: ignore[attr-defined]
