"""How many images a config trains on, as far as its annotations are here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from .scan import read_json, read_text

# Above it they are more images than any schedule has to be fitted to, and take long to
# read.
_MOST_BYTES = 64 << 20


def count_images(config: Config) -> int | None:
    """Count the images of an epoch, those that are repeated as often as they are.

    Args:
        config: All of it.

    Returns:
        None if an annotation file is not here, is of a kind that is not known, or is as
        large as those of the data sets that schedules are published for.
    """
    return _count((config.get('train_dataloader') or {}).get('dataset'))


def _count(dataset: Any) -> int | None:
    if not isinstance(dataset, dict):
        return None
    inner = dataset.get('dataset')
    parts = dataset.get('datasets') or ([inner] if inner else [])
    if parts:
        counts = [_count(part) for part in parts]
        if None in counts:
            return None
        return sum(n for n in counts if n) * int(dataset.get('times', 1))
    given = dataset.get('ann_file')
    if not isinstance(given, str) or not given:
        return None
    return _listed(Path(str(dataset.get('data_root') or ''), given))


def _listed(path: Path) -> int | None:
    """Images that an annotation file lists."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        if path.suffix == '.txt':
            lines = read_text(path, _MOST_BYTES).splitlines()
            return sum(bool(line.strip()) for line in lines) or None
        images = read_json(path)['images']
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the check tells what is wrong with it
    return len(images) if isinstance(images, list) and images else None
