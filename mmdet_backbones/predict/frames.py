"""Images as they come, read before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import UserError

# Decoders let others run meanwhile. Of large photographs more would fill the memory.
_READERS, _AHEAD, _BYTES_AHEAD = 4, 8, 256 << 20


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        name: Below the folder that all images lie in, or of the video.
        pixels: (H, W, 3) uint8, RGB.
        path: Of the file; None for a frame of a video.
        number: Of the frame, from 0; None for a file.
        time: Of the frame, in seconds; None for a file.
    """

    name: str
    pixels: np.ndarray
    path: Path | None = None
    number: int | None = None
    time: float | None = None

    @property
    def shown(self) -> str:
        """What it is called in a list: the path by which it was found."""
        return self.name if self.path is None else str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_ahead(
    images: Sequence[Path],
    read: Callable[[Path], np.ndarray],
    name: Callable[[Path], str],
    leave: Callable[[str], None],
) -> Iterator[Frame]:
    """Read images in several threads, and yield them in their order.

    Args:
        images: Their files.
        read: Reads one.
        name: Names one.
        leave: Gets what is wrong with one that cannot be read.
    """
    todo = iter(images)
    waiting: deque[tuple[Path, Future]] = deque()
    ahead = 1
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            while True:
                for path in islice(todo, max(0, ahead - len(waiting))):
                    waiting.append((path, readers.submit(read, path)))
                if not waiting:
                    return
                path, reading = waiting.popleft()
                try:
                    pixels = reading.result()
                except UserError as error:
                    leave(str(error))
                    continue
                ahead = max(1, min(_AHEAD, _BYTES_AHEAD // pixels.nbytes))
                yield Frame(name(path), pixels, path)
        finally:
            # Whoever stops does not wait for images that nobody looks at.
            for _, reading in waiting:
                reading.cancel()
