"""ONNX models through onnxruntime, on the processor."""

from __future__ import annotations

import numpy as np
import onnxruntime

from ..description import OUTPUTS
from ..folder import ExportedFolder

_ERRORS_ONLY = 3


class OnnxEngine:
    """Runs a session of onnxruntime.

    Args:
        session: Of a graph that takes ``images`` and ``sizes``.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one batch; see :class:`~mmdet_backbones.runtime.engines.Engine`."""
        inputs = {'images': images, 'sizes': sizes}
        return tuple(self._session.run(list(OUTPUTS), inputs))


def open_folder(folder: ExportedFolder, threads: int | None) -> OnnxEngine:
    """Load ``model.onnx``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    (path,) = folder.files
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider'], enable_fallback=False
    )
    given = {value.name for value in session.get_inputs()}
    taken = {value.name for value in session.get_outputs()}
    if given != {'images', 'sizes'} or not taken >= set(OUTPUTS):
        raise ValueError(
            f'the graph must take images and sizes and give {", ".join(OUTPUTS)}, it '
            f'takes {", ".join(sorted(given))} and gives {", ".join(sorted(taken))}'
        )
    return OnnxEngine(session)
