"""Weights and maps of a net in 8 bits, as far as its mAP allows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..runtime import ExportedDetector, load
from ..runtime.description import MODEL_FILES
from ..runtime.resizing import padded_size, resize, size_for
from .evidence import Images
from .formats import without_telemetry

# What stands around the net computes with places and scores: always float.
_ALWAYS = (r'^graph/.*', r'^preprocessing/.*', r'^decoder/.*')
# Parts that are left in float one after another, by how they are told.
_LADDER = (
    ('nothing of the net', ()),
    ('the heads', (r'^decoder\..*', r'^detector\.(?!backbone|neck).*')),
    ('heads and neck', (r'^decoder\..*', r'^detector\.(?!backbone).*')),
)
Read = Callable[[Path], np.ndarray]


def quantise(
    folder: Path,
    exported: ExportedDetector,
    images: Images,
    read: Read,
    max_drop: float,
    describe: Callable[[], None],
) -> list[str]:
    """Replace the model of a folder by one of 8 bits.

    All of the net is quantised first; where that costs too much, parts are left in
    float, the heads first, until it does not.

    Args:
        folder: Of an export in float32.
        exported: Its detector.
        images: To calibrate and to measure with.
        read: From a path to (H, W, 3) uint8, RGB.
        max_drop: How much mAP may be lost, of 1.
        describe: Writes ``detector.json`` anew, after the model has changed.

    Returns:
        What a user should know.

    Raises:
        UserError: If it costs too much whatever is left in float.
    """
    items = [_inputs(exported, image) for image in images.to_calibrate(read)]
    before = images.average_precision(exported.predict, read)
    backend = _Onnx(folder) if exported.folder.format == 'onnx' else _OpenVino(folder)
    tried = []
    for what, patterns in _LADDER:
        backend.write(_quantised(backend.model(), items, (*_ALWAYS, *patterns)))
        describe()
        after = images.average_precision(load(folder).predict, read)
        tried.append(f'{after:.3f} with {what} in float')
        if before - after <= max_drop:
            return [
                f'mAP {before:.3f} before quantising, {"; ".join(tried)}; '
                f'calibrated on {len(items)} images of the training. Preprocessing, '
                'decoding and suppression stay in float'
            ]
    raise UserError(
        f'int8 costs more than {max_drop:g} of mAP, which is {before:.3f} before: '
        f'{"; ".join(tried)}. Write --precision fp16 or a larger --max-drop'
    )


def _inputs(exported: ExportedDetector, image: np.ndarray) -> dict[str, np.ndarray]:
    rule = exported.folder.resize
    size = size_for(rule, *image.shape[:2])
    pixels = np.zeros((1, *padded_size(rule, *size), 3), np.uint8)
    pixels[0, : size[0], : size[1]] = resize(image, *size, rule.interpolation)
    return dict(images=pixels, sizes=np.array([size], np.int64))


def _quantised(model: Any, items: Sequence[Any], patterns: Sequence[str]) -> Any:
    with without_telemetry(), _silent():
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        # onnxruntime runs no convolution of maps with a scale for each channel.
        maps = QuantizationParameters(per_channel=False)
        return nncf.quantize(
            model,
            nncf.Dataset(list(items)),
            subset_size=len(items),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=list(patterns), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_quantization_params=maps
            ),
        )


class _Onnx:
    """The model of a folder of ONNX, in float as it was at first."""

    def __init__(self, folder: Path) -> None:
        import onnx

        self._path = folder / MODEL_FILES['onnx'][0]
        self._first = onnx.load(str(self._path))

    def model(self) -> Any:
        """A copy, which may be changed."""
        import copy

        return copy.deepcopy(self._first)

    def write(self, model: Any) -> None:
        """Write another one in its place."""
        import onnx

        onnx.save(model, str(self._path))


class _OpenVino:
    """The model of a folder of OpenVINO, in float as it was at first."""

    def __init__(self, folder: Path) -> None:
        import openvino

        self._structure, self._weights = (folder / n for n in MODEL_FILES['openvino'])
        core = openvino.Core()
        # Read from memory: the file of the weights is going to be replaced.
        self._first = core.read_model(
            self._structure.read_bytes(), self._weights.read_bytes()
        )

    def model(self) -> Any:
        """A copy, which may be changed."""
        return self._first.clone()

    def write(self, model: Any) -> None:
        """Write another one in its place."""
        import openvino

        # The old weights may still be mapped into memory.
        new = self._structure.with_name('new.xml')
        openvino.save_model(model, str(new), compress_to_fp16=False)
        new.with_suffix('.bin').replace(self._weights)
        new.replace(self._structure)


@contextmanager
def _silent() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
