"""Videos, cameras and streams, read frame by frame with OpenCV."""

from __future__ import annotations

import contextlib
import queue
import threading
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
        if not capture.isOpened():
            raise UserError(self._not_opened())
        reel = Reel(self, capture)
        try:
            yield reel
        finally:
            reel.close()

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

    Of one that goes on by itself every frame is the newest: whoever takes longer for a
    frame than the camera does misses some, and does not fall behind.

    Args:
        film: It.
        capture: OpenCV's, opened.

    Attributes:
        rate: Frames a second.
        count: Of frames; None if that is not known.
        read: Frames so far, with those that nobody took.
    """

    def __init__(self, film: Film, capture: Any) -> None:
        self.film = film
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # A video on a server is sent as fast as it is read.
        self.count = count if count > 0 else None
        self.read = 0
        self._newest: queue.Queue = queue.Queue(1)
        self._stop = threading.Event()
        self._reader: threading.Thread | None = None

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield number, from 0, and pixels of frames, (H, W, 3) uint8 in RGB."""
        if not self.film.live or self.count:
            while (pixels := self._next()) is not None:
                yield self.read - 1, pixels
            return
        self._reader = threading.Thread(target=self._keep, daemon=True)
        self._reader.start()
        while (found := self._newest.get()) is not None:
            yield found

    def close(self) -> None:
        """Let go of the camera."""
        if self._reader is not None:
            self._stop.set()
            with contextlib.suppress(queue.Empty):
                self._newest.get_nowait()
            self._reader.join(_WAIT_MS / 1000)
            if self._reader.is_alive():
                return  # What is released while it is read from ends the process.
        self._capture.release()

    def _next(self) -> np.ndarray | None:
        there, pixels = self._capture.read()
        if not there:
            return None
        self.read += 1
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def _keep(self) -> None:
        """Put the newest frame into the place of one that nobody has taken."""
        while not self._stop.is_set():
            pixels = self._next()
            if pixels is None:
                self._newest.put(None)
                return
            with contextlib.suppress(queue.Empty):
                self._newest.get_nowait()
            self._newest.put((self.read - 1, pixels))

    @property
    def problem(self) -> str | None:
        """What was wrong with its end; None if nothing was."""
        if not self.read:
            return f"'{self.film.name}' has no frame that can be read"
        if self.count and self.read < self.count * (1 - _MOST_MISSING):
            return (
                f"'{self.film.name}' is damaged, or was cut off: {self.read} of its "
                f'{self.count} frames could be read'
            )
        return None
