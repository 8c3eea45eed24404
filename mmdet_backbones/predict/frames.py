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

# Decoders let others run meanwhile; more would fill the memory with large photographs.
_READERS, _AHEAD = 4, 8


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        name: What it is called in the output.
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
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            while True:
                for path in islice(todo, _AHEAD - len(waiting)):
                    waiting.append((path, readers.submit(read, path)))
                if not waiting:
                    return
                path, reading = waiting.popleft()
                try:
                    pixels = reading.result()
                except UserError as error:
                    leave(str(error))
                    continue
                yield Frame(name(path), pixels, path)
        finally:
            # Whoever stops does not wait for images that nobody looks at.
            for _, reading in waiting:
                reading.cancel()
