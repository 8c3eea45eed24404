"""One engine for each format, imported when a folder of that format is loaded."""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from ...errors import UserError
from ..folder import ExportedFolder

#: Format: the module here, and the package that it needs.
_ENGINES = {
    'onnx': ('onnx', 'onnxruntime'),
    'openvino': ('openvino', 'openvino'),
    'torch': ('torch', 'torch'),
}
_OTHERS = 'Formats that run on any processor: onnx and openvino'


class Engine(Protocol):
    """Runs the net of a folder."""

    def run(self, images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one batch.

        Args:
            images: (N, H, W, 3) uint8, RGB, each in the upper left corner.
            sizes: (N, 2) int64, height and width of each without padding, in pixels.

        Returns:
            Boxes (N, K, 4), scores (N, K), labels (N, K).
        """


def start(folder: ExportedFolder, threads: int | None, trust: bool) -> Engine:
    """Load the net of a folder.

    Args:
        folder: That was read and found whole.
        threads: Of the engine; its own choice if None.
        trust: Whether a file may be loaded that can bring code.

    Raises:
        UserError: If the engine is not installed or cannot load the net.
    """
    if folder.format not in _ENGINES:
        raise UserError(
            f"'{folder.path}' is of format {folder.format}, which only NVIDIA's own "
            f'tools run, not this package. {_OTHERS}'
        )
    module, package = _ENGINES[folder.format]
    if find_spec(package) is None:
        raise UserError(
            f"'{folder.path}' is of format {folder.format}, whose engine is not "
            f'installed: write\n  pip install {package}'
        )
    if folder.format == 'torch' and not trust:
        raise UserError(
            f"'{folder.path}' is of format torch, which can bring code of whoever "
            'wrote it. If that is you, or somebody you trust, write\n'
            f"  load('{folder.path}', trust=True)\n{_OTHERS}, and are data"
        )
    try:
        engine = import_module(f'.{module}', __package__)
    except ImportError as error:
        raise UserError(
            f'{package} is installed and cannot be imported: {error}. Write\n'
            f'  pip install --force-reinstall {package}'
        ) from error
    try:
        return engine.open_folder(folder, threads)
    except UserError:
        raise
    # Engines have no common class for what they cannot load.
    except Exception as error:
        raise UserError(_refused(folder, package, error)) from error


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # the same under another name
        return str(getattr(import_module(package), '__version__', 'here'))


def _refused(folder: ExportedFolder, package: str, error: Exception) -> str:
    here, written = _installed(package), folder.version_of(package)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    message = f"{package} {here} cannot load the net of '{folder.path}': {reason}"
    if written is None or written == here:
        return f'{message}. Export the detector anew'
    return (
        f'{message}. It was written for {package} {written}: write\n'
        f'  pip install {package}=={written}\nor export the detector anew'
    )
