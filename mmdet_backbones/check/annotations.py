"""Annotation files as far as the check needs them, and how long an epoch is."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..detector_config.tree import Part, type_name

# What mmdet reads of a file in COCO's format.
_COCO = {
    'images': {'id', 'file_name'},
    'annotations': {'image_id', 'category_id'},
    'categories': {'id', 'name'},
}
# Samplers that give each image of a process once in an epoch.
_ONCE = ('', 'DefaultSampler', 'InfiniteSampler')


class CocoContent(NamedTuple):
    """What a file in COCO's format has.

    Attributes:
        classes: Names of its categories.
        images: Number of its images.
        filled: Number of those with annotations.
        problem: What keeps it from being used; empty if nothing.
    """

    classes: tuple[str, ...] = ()
    images: int = 0
    filled: int = 0
    problem: str = ''


def annotation_file(dataset: Part) -> Path:
    """Path of the annotations of a data set."""
    return Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def read_annotations(path: Path) -> CocoContent:
    """Look into a file in COCO's format.

    Args:
        path: Of the file, which is there.

    Returns:
        What it has; nothing and no problem for a file of another format.
    """
    state = path.stat()
    return _read_once(path, state.st_mtime_ns, state.st_size)


# Files of a GB are read by several rules, and by the check of every swap.
@functools.lru_cache(maxsize=64)
def _read_once(path: Path, *_: int) -> CocoContent:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        return CocoContent(problem=f'is not JSON that can be read: {error}')
    if not isinstance(content, Mapping):
        return CocoContent()  # such as that of LVIS' relatives
    for name, needed in _COCO.items():
        entries = content.get(name, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, Mapping) and needed <= entry.keys() for entry in entries
        ):
            words = ', '.join(sorted(needed))
            problem = f'has {name} that are no list of dicts with {words}'
            return CocoContent(problem=problem)
    problem = ''
    if {*_COCO} <= content.keys():
        empty = [name for name in ('images', 'annotations') if not content[name]]
        if empty:
            problem = f'has no {empty[0]}: there is nothing to learn or measure'
    return CocoContent(
        tuple(str(category['name']) for category in content.get('categories', ())),
        len(content.get('images', ())),
        len({str(a['image_id']) for a in content.get('annotations', ())}),
        problem,
    )


def epoch_length(loader: Part, num_gpus: int) -> int | None:
    """Iterations of one process in one epoch.

    Args:
        loader: Config of the dataloader.
        num_gpus: Processes that train together.

    Returns:
        None where it is not known, as of annotations that are not on this machine.
    """
    if loader.get('num_batch_per_epoch'):
        return int(loader['num_batch_per_epoch'])
    batch, images = loader.get('batch_size'), _images(loader.get('dataset') or {})
    if not batch or not images or type_name(loader.get('sampler') or {}) not in _ONCE:
        return None
    each = math.ceil(images / num_gpus)
    return max(each // batch, 1) if loader.get('drop_last') else -(-each // batch)


def _images(dataset: Any) -> int | None:
    """Images of an epoch of a data set; None if they cannot be counted here."""
    kind = type_name(dataset)
    if kind == 'ConcatDataset':
        parts = [_images(part) for part in dataset.get('datasets') or ()]
        return None if None in parts else sum(part or 0 for part in parts)
    if 'dataset' in dataset:
        inner = _images(dataset['dataset'])
        if inner is None or kind not in ('RepeatDataset', 'MultiImageMixDataset'):
            return None  # of others it hangs on the boxes how often an image comes
        return inner * int(dataset.get('times', 1))
    path = annotation_file(dataset)
    if dataset.get('indices') is not None or not path.is_file():
        return None
    if path.suffix == '.txt' and kind in ('VOCDataset', 'XMLDataset'):
        return sum(bool(row.strip()) for row in path.read_text().splitlines())
    if path.suffix != '.json':
        return None
    found = read_annotations(path)
    empty_too = not (dataset.get('filter_cfg') or {}).get('filter_empty_gt')
    return (found.images if empty_too else found.filled) or None
