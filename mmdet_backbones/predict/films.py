"""Videos, cameras and streams, read frame by frame with OpenCV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import UserError

# Of a stream; OpenCV's own are 30 seconds.
_WAIT_MS = 10_000
# A container gives its number of frames by its duration, which may be off by a few.
_MOST_MISSING = 0.05
_USUAL_RATE = 25.0


@dataclass(frozen=True)
class Film:
    """Moving pictures.

    Attributes:
        address: Path, number of a camera, or address of a stream.
        name: What it is called, without a password.
        live: Whether it goes on until somebody stops it.
        camera: Its number; None for a file or a stream.
    """

    address: str
    name: str
    live: bool = False
    camera: int | None = None

    @property
    def stem(self) -> str:
        """Name for a file about it."""
        if self.camera is not None:
            return f'camera_{self.camera}'
        return 'stream' if self.live else Path(self.address).stem

    @contextlib.contextmanager
    def opened(self) -> Iterator[Reel]:
        """Open it.

        Raises:
            UserError: If it cannot be, with what to do.
        """
        capture = self._capture()
        try:
            if not capture.isOpened():
                raise UserError(self._not_opened())
            yield Reel(self, capture)
        finally:
            capture.release()

    def _capture(self) -> Any:
        if self.camera is not None:
            return cv2.VideoCapture(self.camera)
        if not self.live:
            return cv2.VideoCapture(self.address)
        waits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        settings = [value for wait in waits for value in (wait, _WAIT_MS)]
        return cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, settings)

    def _not_opened(self) -> str:
        if self.camera is not None:
            there = ', '.join(str(path) for path in sorted(Path('/dev').glob('video*')))
            return (
                f'there is no {self.name}, or another program has it (devices here: '
                f'{there or "none"})'
            )
        if self.live:
            return (
                f"the stream '{self.name}' does not answer within {_WAIT_MS // 1000} "
                's, or is no video: look whether a player such as ffplay shows it'
            )
        return (
            f"the video '{self.name}' cannot be read: it is damaged, or of a kind that "
            'OpenCV does not know; ffmpeg -i FILE out.mp4 converts it'
        )


class Reel:
    """A film that is being read.

    Args:
        film: It.
        capture: OpenCV's, opened.

    Attributes:
        rate: Frames a second.
        count: Of frames; None if that is not known.
    """

    def __init__(self, film: Film, capture: Any) -> None:
        self.film = film
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not film.live else None
        self.read = 0

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8 in RGB."""
        while True:
            there, pixels = self._capture.read()
            if not there:
                return
            self.read += 1
            yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    @property
    def problem(self) -> str | None:
        """What was wrong with its end; None if nothing was."""
        if not self.read:
            return f"'{self.film.name}' has no frame that can be read"
        if self.count and self.read < self.count * (1 - _MOST_MISSING):
            return (
                f"'{self.film.name}' is damaged: {self.read} of its {self.count} "
                'frames could be read'
            )
        return None
