"""A detector that was exported to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import path_of
from ..runtime import is_exported, load
from ..runtime.detections import Detections
from ..runtime.folder import DESCRIPTION
from ..runtime.reading import read_image

ENGINES = ('.onnx', '.xml', '.pt2', '.engine')
_CODE = 'model.pt2'


class ExportedFinder:
    """An exported detector, which reads images as the others do.

    Args:
        detector: Loaded.
    """

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self.names: tuple[str, ...] = tuple(detector.names)

    def read(self, path: Path) -> np.ndarray:
        """Read an image: (H, W, 3) uint8, RGB."""
        return read_image(path)

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find boxes in some images."""
        return list(self._detector.predict(images))


def exported_folder(model: str) -> Path | None:
    """Return the folder that an export left; None if this is none."""
    path = path_of(model)
    if path.suffix in ENGINES or path.name == DESCRIPTION:
        # The file that people look at names its folder.
        path = path.parent
    return path if is_exported(path) else None


def load_exported(
    folder: Path,
    device: str | None,
    checkpoint: str | None,
    trust: bool,
    fast: bool = False,
    threads: int | None = None,
) -> ExportedFinder:
    """Load what an export left.

    Args:
        folder: It.
        device: What a user asked for; only the CPU can be had.
        checkpoint: What a user named; none can be.
        trust: As for :func:`~mmdet_backbones.runtime.load`.
        fast: What a user asked for; it is as fast as its format.
        threads: As for :func:`~mmdet_backbones.runtime.load`.

    Raises:
        UserError: If the folder cannot be used so.
    """
    problems = []
    if checkpoint is not None:
        problems.append(f"'{folder}' is exported with its weights: leave --checkpoint")
    if device not in (None, 'cpu'):
        problems.append(f"'{folder}' is exported and runs on the CPU: leave --device")
    if fast:
        problems.append(f"'{folder}' is exported, and as it is: leave --fast")
    if not trust and (folder / _CODE).is_file():
        problems.append(
            f"'{folder / _CODE}' can bring code of whoever wrote it. If that is you, "
            'or somebody you trust, write --trust, in Python trust=True'
        )
    if problems:
        raise UserError('\n'.join(problems))
    return ExportedFinder(load(folder, threads, trust))
