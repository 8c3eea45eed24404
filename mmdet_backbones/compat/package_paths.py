"""mmengine's package look-ups, which ``_base_ = 'package::...'`` goes through.

mmengine 0.10.7 asks ``pkg_resources``. That does not know where an editable install
keeps its files, and setuptools 82 removed it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = 'mmdet_backbones'
NO_PKG_RESOURCES = (
    "mmengine looks up '{package}' (for a base such as 'mmdet::...') through "
    'pkg_resources, which setuptools 82 removed. Install an older one: '
    'pip install "setuptools<82"'
)
# Modules of mmengine that hold the functions under their own name.
_HOLDERS = (
    'mmengine.utils.package_utils',
    'mmengine.utils',
    'mmengine.config.config',
    'mmengine.hub.hub',
)


def extend(package_utils: ModuleType) -> None:
    """Answer for this package and explain a missing ``pkg_resources``.

    Args:
        package_utils: ``mmengine.utils.package_utils``, changed in place.
    """
    here = str(Path(__file__).parents[1])
    for name, answer in (('is_installed', True), ('get_installed_path', here)):
        host = getattr(package_utils, name)
        ours = _answering(host, answer)
        for holder in _HOLDERS:
            module = sys.modules.get(holder)
            if module is not None and getattr(module, name, None) is host:
                setattr(module, name, ours)


def find_configs(config_class: Any) -> None:
    """Find the configs of packages at once, and read ours as the user's own.

    mmengine reads all metafiles of a package, a second for mmdet's, for names without
    an ending that none of them has, and takes the file of the path then. And it gives
    every ``type`` of a packaged config the scope of its package; ours are configs of
    mmdet's detectors, so their types belong to ``default_scope``.

    Args:
        config_class: ``mmengine.config.Config``, changed in place.
    """
    host = config_class._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        # Of what is no text, mmengine has its own message.
        scope, separator, within = str(cfg_path).partition('::')
        shipped = shipped_configs(scope) if separator else None
        if shipped is not None and (shipped / within).is_file():
            return str(shipped / within), None if scope == PACKAGE else scope
        path, found = host(cfg_path, filename)
        return path, None if found == PACKAGE else found

    config_class._get_cfg_path = staticmethod(get_cfg_path)


def shipped_configs(package: str) -> Path | None:
    """Find the folder of the configs that a package ships; None if it is not there."""
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / '.mim' / 'configs'


def _answering(host: Callable[[str], Any], answer: Any) -> Callable[[str], Any]:
    def look_up(package: str) -> Any:
        if package == PACKAGE:
            return answer
        try:
            with warnings.catch_warnings():
                # pkg_resources announces its removal at every import.
                warnings.filterwarnings('ignore', message='pkg_resources')
                return host(package)
        except ModuleNotFoundError as error:
            if error.name != 'pkg_resources':
                raise
            message = NO_PKG_RESOURCES.format(package=package)
            raise ModuleNotFoundError(message, name='pkg_resources') from error

    look_up.__name__ = host.__name__
    look_up.__doc__ = host.__doc__
    return look_up
