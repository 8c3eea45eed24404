"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that an interruption leaves the old one or the new one.

    Args:
        path: The file; its folder is made when missing.
        content: What to write.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that the next run replaces what an interrupted one left.
    partial = path.with_name(f'{path.name}.partial')
    partial.write_bytes(content)
    partial.replace(path)
