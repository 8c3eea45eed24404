"""Files that grow line by line: whole lines, whenever the run is stopped."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import NotWrittenError


def partial_of(path: Path) -> Path:
    """Name a file while it grows; who looks for it shall find it."""
    return path.with_name(f'{path.name}.partial')


class LineFile:
    """A file that gets its name when it is complete.

    Until then it is ``NAME.partial`` beside it, which holds whole lines at any time, so
    that a run that was killed has lost nothing.

    Args:
        path: The file; its folder is made when missing.

    Raises:
        NotWrittenError: If it cannot be written; so does every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = partial_of(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A link is replaced, never written through.
            self.partial.unlink(missing_ok=True)
            self._file = self.partial.open('xb', buffering=0)
        except OSError as error:
            raise NotWrittenError(path, error) from error

    def write(self, text: str) -> None:
        """Write whole lines."""
        data = text.encode('utf-8', 'surrogateescape')
        start = self._file.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            self._file.truncate(start)
            self._file.seek(start)
            if isinstance(error, OSError):
                raise NotWrittenError(self.partial, error) from error
            raise

    def close(self) -> None:
        """Give the file its name."""
        self._file.close()
        try:
            os.replace(self.partial, self.path)
        except OSError as error:
            raise NotWrittenError(self.path, error) from error

    def leave(self) -> None:
        """Keep what there is under the name of a file that is not complete."""
        self._file.close()
