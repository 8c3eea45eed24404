"""What an environment holds, and what became of trying it.

An environment that needs a doctor may raise, crash or hang on any import, so
versions are read from the metadata of the distributions, and each library is
imported in a process of its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
_OTHERS = ('mmdet_backbones', 'torch', 'torchvision', 'timm', 'setuptools', 'packaging',
           'lazy_loader', 'defusedxml', 'numpy', 'opencv-python',
           'opencv-python-headless', 'transformers', 'pycocotools')  # fmt: skip
DISTRIBUTIONS = (
    *(name for names in (*UPSTREAM.values(), *ONEDL.values()) for name in names),
    *_OTHERS,
)
#: How the error of a trial begins that did not end.
LATE = 'not finished after'
_ROOT = str(Path(__file__).resolve().parents[3])
# Before what needs operators that it serves.
_PACKAGE = f'sys.path.insert(0, {_ROOT!r})\nimport mmdet_backbones\ndel sys.path[0]\n'
TRIALS = {
    'numpy': 'import numpy',
    'cv2': 'import cv2',
    'pycocotools': 'import pycocotools.mask',
    'torch': 'import torch',
    'torchvision': 'import torchvision',
    'mmpretrain': 'import mmpretrain.models',
    'mmdet_backbones': _PACKAGE,
    'mmdet': f'{_PACKAGE}import mmdet',
    'mmcv.ops': f'{_PACKAGE}import mmcv.ops',
}
# By path: `import mmcv._ext` would run mmcv's __init__, which fails on its own.
_EXTENSION = """
import importlib.util, torch
spec = importlib.util.spec_from_file_location('mmcv._ext', {path!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


@dataclass(frozen=True)
class Snapshot:
    """All that the rules look at.

    Attributes:
        python: Version of the interpreter.
        versions: Distribution -> version; what is not installed is absent.
        builds: ``torch`` and ``torchvision`` with the tag of the build, such as
            ``2.14.1+cu130``.
        extension: The compiled operators of mmcv that this Python would load.
        has_pkg_resources: Whether ``import pkg_resources`` finds something.
        trials: Name of a trial -> its error, empty where it went well.
    """

    python: str
    versions: Mapping[str, str]
    builds: Mapping[str, str] = field(default_factory=dict)
    extension: str | None = None
    has_pkg_resources: bool = True
    trials: Mapping[str, str] = field(default_factory=dict)

    def works(self, trial: str) -> bool:
        """Tell whether a trial was made and went well."""
        return self.trials.get(trial) == ''

    def error(self, trial: str) -> str:
        """Return how a trial failed; empty if it did not, or did not end."""
        error = self.trials.get(trial, '')
        return '' if error.startswith(LATE) else error

    def sources(self) -> dict[str, str]:
        """Give the code of what only trying can tell, by the name of the trial."""
        if self.extension is None:
            return TRIALS
        return {**TRIALS, 'extension': _EXTENSION.format(path=self.extension)}

    def has(self, name: str) -> bool:
        return name in self.versions

    def version(self, name: str) -> str | None:
        """Return the version of a distribution, with the tag of its build."""
        return self.builds.get(name, self.versions.get(name))

    def upstream(self) -> list[str]:
        """Name the installed distributions of the upstream family."""
        return self._installed(UPSTREAM)

    def onedl(self) -> list[str]:
        """Name the installed distributions of the onedl family."""
        return self._installed(ONEDL)

    def shown(self, *names: str) -> str:
        """Write names with their versions, as in ``torch 2.14.1 and timm 1.0.31``."""
        texts = [f'{name} {self.version(name) or "(none)"}' for name in names]
        return ' and '.join(filter(None, [', '.join(texts[:-1]), texts[-1]]))

    def _installed(self, family: Mapping[str, tuple[str, ...]]) -> list[str]:
        return [name for names in family.values() for name in names if self.has(name)]


def read_snapshot() -> Snapshot:
    """Read the environment of this interpreter; no package of it is imported."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            # An interrupted installation leaves metadata without a version.
            versions[name] = importlib.metadata.version(name) or 'unknown'
        except importlib.metadata.PackageNotFoundError:
            continue
        except (KeyError, TypeError, OSError):
            versions[name] = 'unknown'
    builds = {name: _build(name) for name in ('torch', 'torchvision')}
    return Snapshot(
        python=platform.python_version(),
        versions=versions,
        builds={k: v for k, v in builds.items() if v and k in versions},
        extension=_extension(),
        has_pkg_resources=_directory('pkg_resources') is not None,
    )


def _directory(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _build(package: str) -> str | None:
    directory = _directory(package)
    try:
        text = (directory / 'version.py').read_text('utf-8') if directory else ''
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"""^__version__[^=\n]*=\s*['"]([^'"]+)""", text, re.M)
    return match.group(1) if match else None


def _extension() -> str | None:
    directory = _directory('mmcv')
    if directory is None:
        return None
    # Only the finder for files: a hook of ours serves the module where it is missing.
    spec = importlib.machinery.PathFinder.find_spec('mmcv._ext', [str(directory)])
    return spec.origin if spec is not None else None


def run_trials(sources: Mapping[str, str], timeout: float = 60.0) -> dict[str, str]:
    """Run code in a process each, as many at a time as there are processors.

    Args:
        sources: Name of a trial -> its code.
        timeout: Seconds that one may take.

    Returns:
        Name of a trial -> its error, empty where it went well.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        errors = pool.map(lambda source: _try(source, timeout), sources.values())
        return dict(zip(sources, errors, strict=True))


def _try(source: str, timeout: float) -> str:
    # With its entry point mmdet_backbones would prepare the libraries, and what they
    # do on their own would not show.
    environment = {**os.environ, 'TORCH_DEVICE_BACKEND_AUTOLOAD': '0'}
    # Python puts the current folder first for -c.
    code = f"import sys\nif sys.path[:1] == ['']:\n    del sys.path[0]\n{source}"
    try:
        done = subprocess.run(
            [sys.executable, '-c', code],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f'{LATE} {timeout:g} s'
    lines = done.stderr.decode(errors='replace').splitlines()
    said = next((line.strip() for line in reversed(lines) if line.strip()), '')
    if done.returncode in (0, 1):
        return said or 'no message' if done.returncode else ''
    status = f'exit code {done.returncode}'
    if -done.returncode in set(signal.Signals):
        status = signal.Signals(-done.returncode).name
    return f'the process ended with {status}; its last line: {said or "none"}'
