"""OpenVINO models, on the processor."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import openvino

from ..description import OUTPUTS
from ..folder import ExportedFolder


class OpenVinoEngine:
    """Runs a compiled model of OpenVINO.

    Args:
        model: Of a graph that takes ``images`` and ``sizes``.
    """

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._model = model
        # A model has one request, which refuses a second thread.
        self._one_by_one = Lock()

    def run(self, images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one batch; see :class:`~mmdet_backbones.runtime.engines.Engine`."""
        with self._one_by_one:
            found = self._model({'images': images, 'sizes': sizes})
        return tuple(found[name] for name in OUTPUTS)


def open_folder(folder: ExportedFolder, threads: int | None) -> OpenVinoEngine:
    """Load ``model.xml`` and ``model.bin``."""
    # Without this, processors with bfloat16 compute in it, whatever was exported.
    precision = 'bf16' if folder.precision == 'bf16' else 'f32'
    settings: dict[str, Any] = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': precision,
    }
    if threads is not None:
        settings['INFERENCE_NUM_THREADS'] = threads
    core = openvino.Core()
    structure, weights = folder.files
    model = core.read_model(str(structure), str(weights))
    return OpenVinoEngine(core.compile_model(model, 'CPU', settings))
