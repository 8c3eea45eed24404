"""Boxes painted over images and videos."""

from __future__ import annotations

import colorsys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError, printable
from ..files import whole_file
from ..runs.drawing import Rectangle, place_labels
from ..runtime.detections import Detections
from .films import Film, Reel
from .frames import Frame

# More labels hide what they name, and finding places for them takes its time.
_MOST_LABELS = 100
_GOLDEN = 0.618034
_KEPT = ('.jpg', '.jpeg', '.png')


def colour(label: int) -> tuple[int, int, int]:
    """Give each class a colour that is far from those of its neighbours."""
    # From green: of one class it is what photographs have least of beside leaves.
    hue = (0.07 + label * _GOLDEN) % 1
    parts = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return tuple(round(255 * part) for part in parts)  # type: ignore[return-value]


def paint(pixels: np.ndarray, found: Detections) -> Image.Image:
    """Paint boxes over an image, the surest on top.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        found: The boxes; with one class alone the labels are the scores.

    Returns:
        The picture, as large as the image.
    """
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    longest = max(picture.size)
    width = max(1, round(longest / 400))
    boxes: list[Rectangle] = [tuple(box) for box in found.boxes.tolist()]
    for box, label in reversed([*zip(boxes, found.labels.tolist(), strict=True)]):
        x0, y0, x1, y1 = box
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        pen.rectangle(corners, outline=colour(label), width=width)
    font = ImageFont.load_default(max(11, round(longest / 70)))
    texts = [_text(found, number) for number in range(min(len(boxes), _MOST_LABELS))]
    sizes = [pen.textbbox((0, 0), text, font)[2:] for text in texts]
    labelled = [
        (box, (size[0] + 4, size[1] + 3))
        for box, size in zip(boxes, sizes, strict=False)
    ]
    places = place_labels(labelled, (0, 0, *picture.size))
    for number in reversed(range(len(texts))):
        (x, y), (_, (w, h)) = places[number], labelled[number]
        pen.rectangle((x, y, x + w, y + h), fill=colour(int(found.labels[number])))
        pen.text((x + 2, y + 1), texts[number], 'black', font)
    return picture


def _text(found: Detections, number: int) -> str:
    name = found.names[found.labels[number]] if len(found.names) > 1 else ''
    return f'{printable(name, 40)} {found.scores[number]:.2f}'.strip()


def picture_file(folder: Path, image: str) -> Path:
    """Name the painted picture of an image.

    Args:
        folder: That pictures go to.
        image: Its name below the folder of all images.
    """
    kept = Path(image).suffix.lower() in _KEPT
    return folder / (image if kept else f'{image}.png')


def film_file(folder: Path, film: Film) -> Path:
    """Name the painted video of a film."""
    return folder / f'{film.stem}.mp4'


class Painter:
    """Writes painted pictures and videos into a folder.

    Args:
        folder: It is made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._video: Any = None
        self._size = (0, 0)
        self._last = -1

    def add(self, frame: Frame, found: Detections, reel: Reel | None) -> None:
        """Paint an image.

        Args:
            frame: It.
            found: Its boxes.
            reel: What it is a frame of.

        Raises:
            NotWrittenError: If it cannot be written.
        """
        picture = paint(frame.pixels, found)
        if reel is None:
            _save(picture, picture_file(self._folder, frame.name))
            return
        if self._video is None:
            self._begin(film_file(self._folder, reel.film), frame.size, reel.rate)
        if frame.size != self._size:
            # A stream may change its size; a file of frames cannot.
            picture = picture.resize(self._size)
        pixels = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
        number = frame.number or 0
        # Frames of a camera that nobody had time for are held, so that what is shown
        # takes its time.
        for _ in range(number - self._last):
            self._video.write(pixels)
        self._last = number

    def _begin(self, path: Path, size: tuple[int, int], rate: float) -> None:
        partial = self._stack.enter_context(whole_file(path, ending='.mp4'))
        fourcc = cv2.VideoWriter.fourcc(*'mp4v')
        self._video = cv2.VideoWriter(str(partial), fourcc, rate, size)
        self._size = size
        self._last = -1
        if not self._video.isOpened():
            raise UserError(
                f"'{path}' cannot be written: OpenCV has no encoder for MP4 here, or "
                f'may not write to that folder; frames of {size[0]} x {size[1]}'
            )

    def end_film(self) -> None:
        """Complete the video of a film."""
        if self._video is not None:
            self._video.release()
            self._video = None
        self._stack.close()

    def leave(self) -> None:
        """Remove a video that is not complete."""
        if self._video is not None:
            self._video.release()
            self._video = None
        stopped = RuntimeError()
        self._stack.__exit__(RuntimeError, stopped, None)


def _save(picture: Image.Image, path: Path) -> None:
    kind = 'PNG' if path.suffix.lower() == '.png' else 'JPEG'
    with whole_file(path) as partial, partial.open('xb') as file:
        # It is looked at once: smaller would take most of the time.
        options = dict(compress_level=1) if kind == 'PNG' else dict(quality=92)
        picture.save(file, kind, **options)
