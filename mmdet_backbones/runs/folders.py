"""Folders that hold several trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: In the folder of a search; the work folders of its trials are in the other.
SEARCH, TRIALS = 'search.json', 'trials'


def work_folders(folders: Sequence[Path]) -> list[Path]:
    """Put the trials of a search into the place of its folder.

    Args:
        folders: Work folders, and folders of searches.
    """
    found: list[Path] = []
    for folder in folders:
        if (folder / SEARCH).is_file():
            found += sorted(p for p in (folder / TRIALS).glob('*') if p.is_dir())
        else:
            found.append(folder)
    return found
