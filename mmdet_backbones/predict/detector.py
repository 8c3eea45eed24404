"""One detector, whatever it was loaded from, and the images it is given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import ArgumentError, UserError, printable
from ..files import not_there, path_of
from ..runtime.detections import Detections
from ..runtime.reading import read_image
from .exported import exported_folder, load_exported

# What an image may be given as.
Given = np.ndarray | str | os.PathLike | Image.Image


class Finder(Protocol):
    """What finds the boxes: mmdet's detector, or an exported one."""

    names: tuple[str, ...]

    def read(self, path: Path) -> np.ndarray:
        """Read an image: (H, W, 3) uint8, RGB."""

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find boxes in the images of one batch."""


class Detector:
    """Finds objects in images.

    :meth:`load` makes one.

    Args:
        finder: What finds the boxes.
        notes: What a user should know of the choice of the weights.

    Attributes:
        names: Of all classes that it knows.
    """

    def __init__(self, finder: Finder, notes: Sequence[str] = ()) -> None:
        self._finder = finder
        self.names = tuple(finder.names)
        self.notes = tuple(notes)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike,
        device: str | None = None,
        checkpoint: str | os.PathLike | None = None,
        trust: bool = False,
        fast: bool = False,
        threads: int | None = None,
    ) -> Detector:
        """Load a detector.

        Args:
            model: Path of a config, ``mmdet::folder/name.py``, a work folder, or the
                folder of an exported detector.
            device: Such as ``'cuda:0'``; a GPU if left out and there. An exported
                detector runs on the CPU.
            checkpoint: Path or address. Left out, the best checkpoint of the work
                folder that is whole, or else the newest.
            trust: Whether a detector that was exported for torch may be loaded, which
                can bring code of whoever wrote it.
            fast: Fold batch normalisation; on a GPU also run in float16 and replay
                CUDA graphs for the first sizes of images. Scores move a little.
            threads: That an exported detector computes on; all cores if left out.
                Of other detectors ``torch.set_num_threads`` decides.

        Raises:
            UserError: A ``ValueError``: if it cannot be found or built, the checkpoint
                does not fill all of it, or there is no such device.
            CheckpointError: If the checkpoint cannot be read.
        """
        folder = exported_folder(os.fspath(model))
        given = None if checkpoint is None else os.fspath(checkpoint)
        if folder is not None:
            return cls(load_exported(folder, device, given, trust, fast, threads))
        # Where all detectors are exported, nobody waits for torch.
        from .locating import find_trained
        from .torch_detector import TorchDetector

        trained = find_trained(os.fspath(model), given)
        return cls(TorchDetector(trained, device, fast), trained.notes)

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """Read an image as the detector was tested with: OpenCV turns it as EXIF says.

        Colours without their transparency, three equal channels of a grey image, and
        the upper 8 bits of one of 16 are kept.

        Args:
            path: Of the file.

        Returns:
            (H, W, 3) uint8, RGB.

        Raises:
            UserError: If there is none, or it cannot be read.
        """
        file = path_of(os.fspath(path))
        if (problem := not_there(file, 'image')) is not None:
            raise UserError(problem)
        try:
            pixels = self._finder.read(file)
        except Exception as error:  # whatever decoders raise
            why = str(error).splitlines() or [type(error).__name__]
            raise UserError(
                f"the image '{file}' cannot be read: {printable(why[0], 200)}"
            ) from error
        return pixels

    def predict(
        self,
        images: Given | Iterable[Given],
        threshold: float | None = None,
        batch: int = 1,
    ) -> list[Detections]:
        """Find the objects in images.

        Args:
            images: Arrays (H, W, 3) uint8 in RGB, paths, or PIL images; one, or
                several.
            threshold: Lowest score of a box; left out, all that the detector gives,
                of which most are wrong.
            batch: Images at a time. Those of different sizes are padded to the
                largest, which moves scores a little; one at a time is what tests
                do.

        Returns:
            The boxes of each image, in its pixels.

        Raises:
            TypeError: If an image is of another kind, or no uint8.
            ValueError: If an array is not (H, W, 3), a file cannot be read, or a
                number is out of its range.
        """
        problems = [*number_problems(threshold, batch)]
        if problems:
            raise UserError('; '.join(problems))
        several = [images] if isinstance(images, Given) else list(images)
        found: list[Detections] = []
        for start in range(0, len(several), batch):
            some = several[start : start + batch]
            arrays = [self._array(image, start + i) for i, image in enumerate(some)]
            found += self._finder.predict(arrays)
        return [above(one, threshold or 0.0) for one in found]

    def _array(self, image: Any, number: int) -> np.ndarray:
        if isinstance(image, (str, os.PathLike)):
            return self.read(image)
        try:
            return read_image(image)
        except (ArgumentError, UserError) as error:
            raise type(error)(f'images[{number}]: {error}') from error


def number_problems(threshold: float | None, batch: int) -> Iterable[str]:
    """Say which numbers are out of their range, and what is allowed."""
    if threshold is not None and not 0 <= threshold <= 1:
        yield f'threshold lies between 0 and 1, got {threshold}'
    if batch < 1:
        yield f'batch is 1 or more, got {batch}'


def above(found: Detections, threshold: float) -> Detections:
    """Keep the boxes of a score and higher."""
    return chosen(found, found.scores >= threshold)


def chosen(found: Detections, which: np.ndarray) -> Detections:
    """Keep some boxes.

    Args:
        found: All.
        which: Truth values or places.
    """
    return Detections(
        found.boxes[which], found.scores[which], found.labels[which], found.names
    )
