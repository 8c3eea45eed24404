"""What a detector of mmdet finds by itself, in images as an exported one gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor

from ..predict.torch_detector import TorchDetector
from ..runtime.detections import Detections
from .intake import Intake, Size

# Of the longer side, where the shorter one alone is bound.
_NO_BOUND = 1 << 30


class Reference:
    """mmdet's own ``predict`` behind the test pipeline.

    Where the exported graph takes one size, images are padded to it, as mmdet pads
    those of a batch to its largest, and those that lie the other way become smaller.

    Args:
        detector: Built from its config, not changed by an export.
        intake: Of its images.
        canvas: Height and width that the graph takes; None for any.

    Attributes:
        notes: In what it differs from the test of the config.
    """

    def __init__(
        self, detector: TorchDetector, intake: Intake, canvas: Size | None
    ) -> None:
        self._detector = detector
        self._intake = intake
        self._canvas = canvas
        if intake.rules.centred:
            # Its padding depends on the image, that of a graph does not.
            detector.steps = [
                step
                for step in detector.steps
                if type(step).__name__ != 'RandomCenterCropPad'
            ]
        self.notes: list[str] = []
        if detector.loader.to_float32:
            detector.loader.to_float32 = False
            self.notes.append(
                'the test pipeline resizes images as floats (to_float32=True), the '
                'exported detector and what it is compared with as bytes: values '
                'differ by half a grey value'
            )
        self._resizes = [s for s in detector.steps if type(s).__name__ == 'Resize']

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find boxes, and clip them to the images.

        Args:
            images: (H, W, 3) uint8, RGB.
        """
        with (
            DefaultScope.overwrite_default_scope(self._detector.scope),
            torch.no_grad(),
        ):
            return [self._of_one(image) for image in images]

    def _of_one(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        for step in self._resizes:
            step.scale = self._scale(height, width)
        sample = self._detector.prepare(image)
        data = self._detector.model.data_preprocessor(pseudo_collate([sample]), False)
        data['inputs'] = self._placed(data['inputs'], data['data_samples'][0])
        (found,) = self._detector.model(**data, mode='predict')
        boxes = self._detector.found_in(found)
        return Detections(
            boxes.boxes.clip(0, [width, height, width, height]).astype(np.float32),
            boxes.scores,
            boxes.labels,
            boxes.names,
        )

    def _scale(self, height: int, width: int) -> Size:
        """Bounds for Resize: those of the config, or of the graph where they bind."""
        bounds = self._intake.scale[::-1]
        if self._canvas is None or not self._intake.keep_ratio:
            return bounds
        long, short = max(height, width), min(height, width)
        factor = min(max(bounds) / long, min(bounds) / short)
        for side, most in zip((height, width), self._canvas, strict=True):
            if most / side < factor:
                factor = most / side
                bounds = (most, most if side == long else _NO_BOUND)
        return bounds

    def _placed(self, inputs: Tensor, sample: Any) -> Tensor:
        """Pad normalised images to what the graph takes."""
        height, width = sample.img_shape
        canvas = self._canvas
        centred = self._intake.rules.centred
        if canvas is None:
            if not centred:
                return inputs
            unit = self._intake.divisor
            canvas = (-(-height // unit) * unit, -(-width // unit) * unit)
        fill = inputs.new_tensor(self._intake.rules.fill).view(1, -1, 1, 1)
        whole = fill.expand(1, -1, *canvas).clone()
        top, left = 0, 0
        if centred:
            top, left = canvas[0] // 2 - height // 2, canvas[1] // 2 - width // 2
            inputs = inputs[..., :height, :width]
            border = [top, top + height, left, left + width]
            sample.set_metainfo(dict(border=border))
        rows, columns = inputs.shape[-2:]
        whole[..., top : top + rows, left : left + columns] = inputs
        sample.set_metainfo(dict(batch_input_shape=canvas, pad_shape=canvas))
        return whole
