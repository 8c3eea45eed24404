"""A detector that was exported to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import path_of
from ..runtime.detections import Detections

#: The file that makes a folder one.
EXPORTED = 'detector.json'
ENGINES = ('.onnx', '.xml', '.pt2', '.engine')


class ExportedFinder:
    """An exported detector, which reads images as the others do."""

    def __init__(self, detector: Any, names: tuple[str, ...]) -> None:
        self._detector = detector
        self.names = names

    def read(self, path: Path) -> np.ndarray:
        """Read an image: (H, W, 3) uint8, RGB."""
        from ..own_data.images import read_pixels

        return read_pixels(path)

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find boxes in some images."""
        return list(self._detector.predict(list(images)))


def exported_folder(model: str) -> Path | None:
    """Return the folder that an export left; None if this is none."""
    path = path_of(model)
    if path.suffix in ENGINES or path.name == EXPORTED:
        # The file that people look at names its folder.
        path = path.parent
    return path if (path / EXPORTED).is_file() else None


def load_exported(
    folder: Path, device: str | None, checkpoint: str | None
) -> ExportedFinder:
    """Load what an export left.

    Args:
        folder: It.
        device: What a user asked for; only the CPU can be had.
        checkpoint: What a user named; none can be.

    Raises:
        UserError: If the folder cannot be used so.
    """
    problems = []
    if checkpoint is not None:
        problems.append(f"'{folder}' is exported with its weights: leave --checkpoint")
    if device not in (None, 'cpu'):
        problems.append(f"'{folder}' is exported and runs on the CPU: leave --device")
    if problems:
        raise UserError('; '.join(problems))
    from ..runtime import load

    detector = load(folder)
    return ExportedFinder(detector, tuple(detector.names))
