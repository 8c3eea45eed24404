"""Programs of torch.export, for machines that have torch anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  (registers nms, which programs name)

from ..folder import ExportedFolder


class TorchEngine:
    """Runs an exported program.

    Args:
        net: Takes images and sizes as tensors.
    """

    def __init__(self, net: Any) -> None:
        self._net = net

    def run(self, images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one batch; see :class:`~mmdet_backbones.runtime.engines.Engine`."""
        with torch.inference_mode():
            found = self._net(torch.from_numpy(images), torch.from_numpy(sizes))
        return tuple(output.numpy() for output in found)


def open_folder(folder: ExportedFolder, threads: int | None) -> TorchEngine:
    """Load ``model.pt2``."""
    if threads is not None:
        torch.set_num_threads(threads)
    (path,) = folder.files
    return TorchEngine(torch.export.load(str(path)).module())
