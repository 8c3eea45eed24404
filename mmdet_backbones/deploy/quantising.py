"""Weights and maps of a net in 8 bits, as far as its mAP allows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..runtime import ExportedDetector, load
from ..runtime.description import MODEL_FILES
from ..runtime.detections import Detections
from ..runtime.engines import Engine
from ..runtime.resizing import padded_size, resize, size_for
from .equality import iou_of
from .evidence import Images
from .formats import without_telemetry

# What stands around the net computes with places and scores: always float.
_ALWAYS = (r'^graph/.*', r'^preprocessing/.*', r'^decoder/.*')
# Images that tell which layers cost most, each of which is tried in float on them.
_RANKED = 16
_NAMED = 12
# Operators with weights, and what stands between a layer and its stored weights.
_LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul', 'Convolution', 'GroupConvolution')
_UNPACKING = ('Convert', 'Multiply', 'Subtract', 'Reshape')
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

    All of the net is quantised first; where that costs too much, the layers whose
    quantising changes most what is found go back to float, one after another, until
    it does not.

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
    trial = _Trial(exported, images, read)
    backend = _Onnx(folder) if exported.folder.format == 'onnx' else _OpenVino(folder)
    quantised = _quantised(backend, items, trial, max_drop)
    backend.write(quantised)
    describe()
    after = images.average_precision(load(folder).predict, read)
    in_float = sorted({name.split('/')[0] for name in backend.in_float(quantised)})
    told = (
        f'mAP {trial.before:.3f} before quantising, {trial.first:.3f} with nothing of '
        f'the net in float, {after:.3f} with {_listed(in_float)} in float'
    )
    if trial.before - after > max_drop:
        raise UserError(
            f'int8 costs more than {max_drop:g} of mAP: {told}. Write --precision fp16 '
            'or a larger --max-drop'
        )
    return [
        f'{told}; calibrated on {len(items)} images of the training. Preprocessing, '
        'decoding and suppression stay in float'
    ]


def _listed(layers: Sequence[str]) -> str:
    more = f' and {len(layers) - _NAMED} more' if len(layers) > _NAMED else ''
    return (', '.join(layers[:_NAMED]) or 'nothing of the net') + more


class _Trial:
    """Says of a model, to what quantises it, how good it is.

    Attributes:
        before: mAP of the model in float32.
    """

    def __init__(self, exported: ExportedDetector, images: Images, read: Read) -> None:
        self._folder, self._images, self._read = exported.folder, images, read
        self._expected = [
            exported.predict([image])[0] for image in images.to_measure(read)
        ]
        self.before = images.judge(self._expected)
        self._on_all: list[float] = []

    @property
    def count(self) -> int:
        """Images that there are."""
        return len(self._expected)

    @property
    def first(self) -> float:
        """Of the first model in 8 bits: mAP."""
        # NNCF asks for one image to see what it gets, and then for the model in float.
        return self._on_all[1 if self.count > 1 else 2]

    def of(self, engine: Engine, places: Iterable[int]) -> tuple[float, list[float]]:
        """Measure a model.

        Args:
            engine: Runs it.
            places: Of the images among those of the test set.

        Returns:
            Its mAP, if on all images; and for each image how far it finds the same.
        """
        detector = ExportedDetector(self._folder, engine)
        places = list(places)
        images = self._images.to_measure(self._read, places)
        found = [detector.predict([image])[0] for image in images]
        alike = [
            _alike(self._expected[n], f) for n, f in zip(places, found, strict=True)
        ]
        if len(found) < self.count:
            return float(np.mean(alike)), alike
        self._on_all.append(self._images.judge(found))
        return self._on_all[-1], alike


def _alike(expected: Detections, found: Detections) -> float:
    """Overlap of each box with the best one of its class, weighed by its score."""
    if not len(expected.scores):
        return 1.0
    same = expected.labels[:, None] == found.labels[None]
    overlaps = iou_of(expected.boxes, found.boxes) * same
    best = overlaps.max(1, initial=0.0)
    return float((best * expected.scores).sum() / expected.scores.sum())


def _inputs(exported: ExportedDetector, image: np.ndarray) -> dict[str, np.ndarray]:
    rule = exported.folder.resize
    size = size_for(rule, *image.shape[:2])
    pixels = np.zeros((1, *padded_size(rule, *size), 3), np.uint8)
    pixels[0, : size[0], : size[1]] = resize(image, *size, rule.interpolation)
    return dict(images=pixels, sizes=np.array([size], np.int64))


def _quantised(
    backend: _Onnx | _OpenVino, items: Sequence[Any], trial: _Trial, max_drop: float
) -> Any:
    with without_telemetry(), _silent():
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        # onnxruntime runs no convolution of maps with a scale for each channel.
        maps = QuantizationParameters(per_channel=False)
        return nncf.quantize_with_accuracy_control(
            backend.model(),
            nncf.Dataset(list(items)),
            nncf.Dataset(range(trial.count)),
            lambda model, places: trial.of(backend.engine(model), places),
            max_drop=max_drop,
            subset_size=len(items),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=list(_ALWAYS), validate=False),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                activations_quantization_params=maps
            ),
            advanced_accuracy_restorer_parameters=(
                nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=_RANKED)
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

    @staticmethod
    def engine(model: Any) -> Engine:
        """Run a model of this format, of which there is no file."""
        import onnxruntime

        from ..runtime.engines.onnx import OnnxEngine

        return OnnxEngine(
            onnxruntime.InferenceSession(
                model.SerializeToString(), providers=['CPUExecutionProvider']
            )
        )

    @staticmethod
    def in_float(model: Any) -> Iterator[str]:
        """Names of layers whose weights are not of 8 bits."""
        weights = {one.name for one in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in _LAYERS and node.input[1] in weights:
                yield node.name

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

    @staticmethod
    def engine(model: Any) -> Engine:
        """Run a compiled model."""
        from ..runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model)

    @staticmethod
    def in_float(model: Any) -> Iterator[str]:
        """Names of layers whose weights are not of 8 bits."""
        for op in model.get_ops():
            if op.get_type_name() in _LAYERS:
                source = op.input_value(1).get_node()
                while source.get_type_name() in _UNPACKING:
                    source = source.input_value(0).get_node()
                float_ = source.get_element_type().is_real()
                if float_ and source.get_type_name() == 'Constant':
                    yield op.get_friendly_name()

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
