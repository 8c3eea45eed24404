"""What an environment holds, read from disk without importing a package of it.

An environment that needs a doctor may raise or crash on any import, so versions
come from the metadata of the distributions and from the text of ``version.py``.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Import name -> distributions that carry it, the two families never together.
UPSTREAM: dict[str, tuple[str, ...]] = {
    'mmdet': ('mmdet',),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmengine': ('mmengine',),
    'mmpretrain': ('mmpretrain',),
}
ONEDL: dict[str, tuple[str, ...]] = {
    'mmdet': ('onedl-mmdetection',),
    'mmcv': ('onedl-mmcv',),
    'mmengine': ('onedl-mmengine',),
    'mmpretrain': ('onedl-mmpretrain',),
}
OTHERS = (
    'mmdet_backbones',
    'torch',
    'torchvision',
    'timm',
    'setuptools',
    'numpy',
    'opencv-python',
    'opencv-python-headless',
    'transformers',
    'pycocotools',
)
DISTRIBUTIONS = (
    *(name for names in UPSTREAM.values() for name in names),
    *(name for names in ONEDL.values() for name in names),
    *OTHERS,
)


@dataclass(frozen=True)
class Probe:
    """What became of one thing that was tried in a subprocess.

    Attributes:
        outcome: ``ok``, ``failed`` (an exception), ``crashed`` (the process died),
            ``timeout`` or ``skipped`` (the process did not get that far).
        error: The last line of the error, empty where there is none.
    """

    outcome: str
    error: str = ''

    @property
    def broken(self) -> bool:
        return self.outcome in ('failed', 'crashed')


@dataclass(frozen=True)
class Snapshot:
    """All that the rules look at.

    Attributes:
        python: Version of the interpreter.
        versions: Distribution -> version; what is not installed is absent.
        on_disk: Import name -> distribution and version that its files declare;
            None where the files are gone.
        builds: ``torch`` and ``torchvision`` with the tag of the build, such as
            ``2.14.1+cu130``.
        extension: The compiled operators of mmcv that this Python would load.
        foreign_extensions: Compiled operators of mmcv for another Python.
        has_pkg_resources: Whether ``import pkg_resources`` finds something.
        probes: Name of a probe -> what became of it.
    """

    python: str
    versions: Mapping[str, str]
    on_disk: Mapping[str, str | None] = field(default_factory=dict)
    builds: Mapping[str, str] = field(default_factory=dict)
    extension: str | None = None
    foreign_extensions: tuple[str, ...] = ()
    has_pkg_resources: bool = True
    probes: Mapping[str, Probe] = field(default_factory=dict)

    def probe(self, name: str) -> Probe:
        """Return what became of a probe, ``skipped`` where it was not tried."""
        return self.probes.get(name, Probe('skipped'))

    def has(self, name: str) -> bool:
        return name in self.versions

    def upstream(self) -> list[str]:
        """Name the installed distributions of the upstream family."""
        return self._installed(UPSTREAM)

    def onedl(self) -> list[str]:
        """Name the installed distributions of the onedl family."""
        return self._installed(ONEDL)

    def shown(self, *names: str) -> str:
        """Write names with their versions, as in ``torch 2.14.1 and timm 1.0.31``."""
        texts = [
            f'{name} {self.builds.get(name, self.versions.get(name, "(none)"))}'
            for name in names
        ]
        return ' and '.join(filter(None, [', '.join(texts[:-1]), texts[-1]]))

    def _installed(self, family: Mapping[str, tuple[str, ...]]) -> list[str]:
        return [name for names in family.values() for name in names if self.has(name)]


def read_snapshot() -> Snapshot:
    """Read the environment of this interpreter; no package of it is imported."""
    versions = _read_versions()
    extension, foreign = _find_extensions()
    return Snapshot(
        python=platform.python_version(),
        versions=versions,
        on_disk={
            name: _declared(name)
            for name in UPSTREAM
            if any(d in versions for d in (*UPSTREAM[name], *ONEDL[name]))
        },
        builds={
            name: build
            for name in ('torch', 'torchvision')
            if name in versions and (build := _literal_version(name))
        },
        extension=extension,
        foreign_extensions=foreign,
        has_pkg_resources=_directory('pkg_resources') is not None,
    )


def _read_versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            # An interrupted installation leaves metadata without a version.
            versions[name] = importlib.metadata.version(name) or 'unknown'
        except importlib.metadata.PackageNotFoundError:
            continue
        except (KeyError, TypeError, OSError):
            versions[name] = 'unknown'
    return versions


def _directory(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _version_text(package: str) -> str:
    directory = _directory(package)
    if directory is None:
        return ''
    try:
        return (directory / 'version.py').read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        return ''


def _literal_version(package: str) -> str | None:
    text = _version_text(package)
    match = re.search(r"""^__version__[^=\n]*=\s*['"]([^'"]+)""", text, re.M)
    return match.group(1) if match else None


def _declared(package: str) -> str | None:
    # The onedl forks ask the metadata for their version under their own name.
    match = re.search(r"""version\(\s*['"](onedl-[\w-]+)""", _version_text(package))
    if match:
        return match.group(1)
    version = _literal_version(package)
    return f'{package} {version}' if version else None


def _find_extensions() -> tuple[str | None, tuple[str, ...]]:
    directory = _directory('mmcv')
    if directory is None:
        return None, ()
    # Only the finder for files: a hook of ours serves the module where it is missing.
    spec = importlib.machinery.PathFinder.find_spec('mmcv._ext', [str(directory)])
    own = spec.origin if spec is not None else None
    files = (*directory.glob('_ext*.so'), *directory.glob('_ext*.pyd'))
    return own, tuple(sorted(str(path) for path in files if str(path) != own))
