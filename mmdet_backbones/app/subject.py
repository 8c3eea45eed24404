"""What the page shows: a detector, and the levels of one that torch runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import printable
from ..files import path_of
from ..predict.detector import Detector
from ..predict.exported import exported_folder

_LONGEST_NAME = 40


@dataclass(frozen=True)
class Subject:
    """A detector that is looked at.

    Attributes:
        name: Short, of the page.
        detector: Finds the boxes.
        draw_levels: Draws what backbone and neck make of the photograph at a path;
            None where there is no backbone to look into.
    """

    name: str
    detector: Detector
    draw_levels: Callable[[Path], Image.Image] | None = None


def load_subject(
    model: str,
    device: str | None = None,
    checkpoint: str | None = None,
    trust: bool = False,
) -> Subject:
    """Load what is to be looked at.

    Args:
        model: A config, a work folder, or an exported folder.
        device: As for :meth:`Detector.load`.
        checkpoint: As for :meth:`Detector.load`.
        trust: As for :meth:`Detector.load`.

    Raises:
        UserError: If it cannot be found or built.
        CheckpointError: If the checkpoint cannot be read.
    """
    path = path_of(model).resolve()
    name = printable(path.stem if path.suffix == '.py' else path.name, _LONGEST_NAME)
    if exported_folder(model) is not None:
        return Subject(name, Detector.load(model, device, checkpoint, trust))
    from ..pictures.visualizing import draw_detector
    from ..predict.locating import find_trained
    from ..predict.torch_detector import TorchDetector

    trained = find_trained(model, checkpoint)
    finder = TorchDetector(trained, device)
    weights = f'weights of {Path(trained.checkpoint).name}'

    def draw_levels(path: Path) -> Image.Image:
        _, _, png = draw_detector(trained.config, finder.model, weights, path)
        return Image.open(io.BytesIO(png))

    return Subject(name, Detector(finder, trained.notes), draw_levels)
