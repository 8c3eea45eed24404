"""The detector of an exported folder: images in, boxes in their pixels out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, UserError
from .detections import Detections
from .engines import Engine, start
from .folder import ExportedFolder, read_folder
from .reading import read_image
from .resizing import padded_size, resize, size_for

# Images at once for a graph that takes any number: more need memory, not less time.
_MOST = 8


@dataclass(frozen=True)
class _Prepared:
    """One image as the graph takes it.

    Attributes:
        pixels: (H, W, 3) uint8, the image in the upper left corner.
        size: Height and width of the image there, in pixels.
        original: Height and width as it was given.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    original: tuple[int, int]


def load(
    folder: str | Path, threads: int | None = None, trust: bool = False
) -> ExportedDetector:
    """Load the detector of an exported folder.

    Args:
        folder: As ``export`` wrote it. Its files are compared with their SHA-256 in
            ``detector.json`` before anything is loaded.
        threads: Of the engine, which computes a net on so many cores; its own choice
            if left out, usually all. For torch the number counts for the process.
        trust: Whether a folder of format ``torch`` may be loaded, which can bring code
            of whoever wrote it. The other formats are data and need none.

    Raises:
        UserError: If the folder is not whole, its engine is not installed, or of a
            version that cannot load it.
        ValueError: If ``threads`` is not above 0.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ArgumentError(
            f'threads must be a whole number above 0, or None, got {threads!r}'
        )
    read = read_folder(folder)
    return ExportedDetector(read, start(read, threads, trust))


class ExportedDetector:
    """Finds boxes with the net of an exported folder.

    Images of one call run together only where they are of one size after resizing,
    so that what is found in one does not depend on the others.

    Args:
        folder: That was read.
        engine: That runs its net.

    Attributes:
        folder: The same.
        names: Of the classes, in the order of the labels.
    """

    def __init__(self, folder: ExportedFolder, engine: Engine) -> None:
        self.folder = folder
        self.names = folder.classes
        self._engine = engine

    def predict(
        self, images: Iterable[Any], threshold: float | None = None
    ) -> list[Detections]:
        """Find boxes.

        Args:
            images: Any number of paths, PIL images and arrays (H, W, 3) of uint8 in
                RGB, of any sizes. Each is read when its turn comes.
            threshold: Lowest score, 0 to 1. Without it, and below the one that the
                detector was exported with, all that the graph returns.

        Returns:
            One for each image, boxes in pixels of the image as it was given.

        Raises:
            UserError: If a file cannot be read.
            TypeError: If an array is not of uint8.
            ValueError: If an array is not (H, W, 3), or the threshold no score.
        """
        if isinstance(images, (str, Path)) or getattr(images, 'ndim', 4) == 3:
            raise ArgumentTypeError(
                'predict takes a list of images, got one: write predict([image])'
            )
        lowest = 0.0 if threshold is None else threshold
        if not isinstance(lowest, Real) or not 0 <= lowest <= 1:
            raise ArgumentError(f'threshold must be from 0 to 1, got {threshold!r}')
        found: list[Detections] = []
        waiting = iter(images)
        while group := list(islice(waiting, self.folder.batch or _MOST)):
            prepared = self._prepare(group, len(found))
            found += self._find(prepared, float(lowest))
        return found

    def _prepare(self, images: list[Any], before: int) -> list[_Prepared]:
        prepared: list[_Prepared] = []
        problems: list[ArgumentError | UserError] = []
        for place, image in enumerate(images, before):
            try:
                prepared.append(self._fit(read_image(image)))
            except (ArgumentError, UserError) as error:
                problems.append(type(error)(f'images[{place}]: {error}'))
        if problems:
            raise type(problems[0])('\n'.join(map(str, problems)))
        return prepared

    def _fit(self, image: np.ndarray) -> _Prepared:
        rule, (height, width) = self.folder.resize, image.shape[:2]
        size = size_for(rule, height, width)
        pixels = np.zeros((*padded_size(rule, *size), 3), np.uint8)
        pixels[: size[0], : size[1]] = resize(image, *size, rule.interpolation)
        return _Prepared(pixels, size, (height, width))

    def _find(self, prepared: list[_Prepared], lowest: float) -> list[Detections]:
        found: dict[int, Detections] = {}
        for places in _of_one_shape(prepared):
            outputs = self._run([prepared[place] for place in places])
            for number, place in enumerate(places):
                parts = [output[number] for output in outputs]
                found[place] = self._detections(prepared[place], lowest, *parts)
        return [found[place] for place in range(len(prepared))]

    def _run(self, images: list[_Prepared]) -> tuple[np.ndarray, ...]:
        # A graph for a fixed number gets the last image once more, and again.
        missing = (self.folder.batch or len(images)) - len(images)
        filled = [*images, *[images[-1]] * missing]
        sizes = np.array([image.size for image in filled], np.int64)
        batch = np.stack([image.pixels for image in filled])
        try:
            outputs = self._engine.run(batch, sizes)
            _check_shapes(outputs, len(batch))
        except Exception as error:  # engines have no common class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the net of '{self.folder.path}' does not take {len(batch)} images of "
                f'{batch.shape[1]} x {batch.shape[2]} pixels (height x width), which '
                f'its detector.json allows: {reason}. Export the detector anew'
            ) from error
        return outputs

    def _detections(
        self,
        image: _Prepared,
        lowest: float,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
    ) -> Detections:
        kept = (labels >= 0) & (scores >= lowest)
        labels = labels[kept].astype(np.int64)
        if len(labels) and labels.max() >= len(self.names):
            raise UserError(
                f"detector.json of '{self.folder.path}' names {len(self.names)} "
                f'classes, its net found one of number {labels.max()}: export anew'
            )
        height, width = image.original
        factors = np.array([image.size[1] / width, image.size[0] / height] * 2)
        original = boxes[kept].astype(np.float64) / factors
        clipped = original.clip(0, [width, height, width, height])
        return Detections(
            boxes=clipped.astype(np.float32),
            scores=scores[kept].astype(np.float32),
            labels=labels,
            names=self.names,
        )


def _check_shapes(outputs: tuple[np.ndarray, ...], count: int) -> None:
    boxes, scores, labels = (output.shape for output in outputs)
    if boxes != (*scores, 4) or labels != scores or scores[:-1] != (count,):
        raise ValueError(f'it gave {boxes}, {scores} and {labels}')


def _of_one_shape(prepared: list[_Prepared]) -> Iterator[list[int]]:
    shapes: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(prepared):
        shapes.setdefault(image.pixels.shape, []).append(place)
    yield from shapes.values()
