"""Cases of the operators on boxes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ops.case import Arrays, Case, mmcv_ops


def _boxes(rng: np.random.Generator, count: int, whole: bool = False) -> np.ndarray:
    """Boxes in a few clusters, so that most overlap with some others."""
    centre = rng.uniform(0, 100, (max(1, count // 8), 2))
    centre = centre[rng.integers(0, len(centre), count)]
    centre = centre + rng.normal(0, 4, (count, 2))
    size = rng.uniform(4, 30, (count, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), axis=1)
    return boxes.round() if whole else boxes


def _scored(
    rng: np.random.Generator, count: int, whole: bool = False, ties: int = 0
) -> Arrays:
    """Boxes with scores that are all different, or rounded to ``ties`` values."""
    scores = (rng.permutation(count) + 0.5) / max(1, count)
    if ties:
        scores = np.ceil(scores * ties) / ties
    return {'boxes': _boxes(rng, count, whole), 'scores': scores}


def _fixed(boxes: list[list[float]], rng: np.random.Generator) -> Arrays:
    count = len(boxes)
    return {
        'boxes': np.array(boxes, dtype=float).reshape(-1, 4),
        'scores': (count - np.arange(count)) / (count + 1.0),
    }


# Overlaps of exactly 0.6, 0.5 and 1/3 with the first box, and boxes without area.
_EXACT = [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 5], [0, 0, 20, 5], [0, 0, 10, 3]]
_FLAT = [[4, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 2]]

_SETS = {
    'clusters': partial(_scored, count=150),
    'whole_pixels': partial(_scored, count=150, whole=True),
    'one': partial(_scored, count=1),
    'none': partial(_scored, count=0),
    'on_threshold': partial(_fixed, _EXACT),
    'no_area': partial(_fixed, _FLAT),
}


def _set(name: str, rng: np.random.Generator) -> Arrays:
    return _SETS[name](rng=rng)


def nms_cases() -> Iterator[Case]:
    for name in _SETS:
        for threshold in (0.3, 0.5, 0.6):
            for offset in (0, 1):
                yield Case(
                    'nms',
                    f'{name}_{threshold}_offset{offset}',
                    partial(_set, name),
                    lambda x, t=threshold, o=offset: mmcv_ops().nms(
                        x['boxes'], x['scores'], t, offset=o
                    ),
                    exact=True,
                )
    yield Case(
        'nms',
        'score_threshold_and_max_num',
        partial(_scored, count=200),
        lambda x: mmcv_ops().nms(
            x['boxes'], x['scores'], 0.5, score_threshold=0.2, max_num=12
        ),
        exact=True,
    )
    yield Case(
        'nms',
        'equal_scores',
        partial(_scored, count=300, ties=7),
        lambda x: mmcv_ops().nms(x['boxes'], x['scores'], 0.5),
        stored=False,
        exact=True,
    )


def _classes(rng: np.random.Generator, count: int) -> Arrays:
    return {**_scored(rng, count), 'labels': rng.integers(0, 5, count)}


def batched_nms_cases() -> Iterator[Case]:
    settings = {
        'nms': {'type': 'nms', 'iou_threshold': 0.5},
        'class_agnostic': {
            'type': 'nms',
            'iou_threshold': 0.5,
            'class_agnostic': True,
        },
        'split': {'type': 'nms', 'iou_threshold': 0.5, 'split_thr': 50},
        'soft_nms': {'type': 'soft_nms', 'iou_threshold': 0.4, 'min_score': 0.05},
    }
    for name, config in settings.items():
        yield Case(
            'batched_nms',
            name,
            partial(_classes, count=150),
            lambda x, c=config: mmcv_ops().batched_nms(
                x['boxes'], x['scores'], x['labels'], dict(c)
            ),
            exact=name != 'soft_nms',
        )


def softnms_cases() -> Iterator[Case]:
    for name in _SETS:
        for method in ('naive', 'linear', 'gaussian'):
            for offset in (0, 1):
                yield Case(
                    'soft_nms',
                    f'{name}_{method}_offset{offset}',
                    partial(_set, name),
                    partial(_soft_nms, method=method, offset=offset, min_score=0.05),
                )
    for method in ('naive', 'linear', 'gaussian'):
        yield Case(
            'soft_nms',
            f'equal_scores_{method}',
            partial(_scored, count=120, ties=5),
            partial(_soft_nms, method=method, offset=0, min_score=0.1),
        )


def _soft_nms(x, method: str, offset: int, min_score: float):
    return mmcv_ops().soft_nms(
        x['boxes'],
        x['scores'],
        iou_threshold=0.3,
        sigma=0.5,
        min_score=min_score,
        method=method,
        offset=offset,
    )


def nms_match_cases() -> Iterator[Case]:
    for name in ('clusters', 'whole_pixels', 'one', 'none', 'on_threshold', 'no_area'):
        for threshold in (0.3, 0.6):
            yield Case(
                'nms_match',
                f'{name}_{threshold}',
                partial(_set, name),
                partial(_nms_match, threshold=threshold),
                exact=True,
            )
    yield Case(
        'nms_match',
        'equal_scores',
        partial(_scored, count=200, ties=4),
        partial(_nms_match, threshold=0.4),
        stored=False,
        exact=True,
    )


def _nms_match(x, threshold: float):
    dets = torch.cat((x['boxes'], x['scores'][:, None]), dim=1)
    groups = mmcv_ops().nms_match(dets, threshold)
    sizes = dets.new_tensor([len(group) for group in groups], dtype=torch.long)
    return sizes, torch.cat([*groups, sizes[:0]])


def _pairs(rng: np.random.Generator, first: int, second: int) -> Arrays:
    return {'boxes1': _boxes(rng, first), 'boxes2': _boxes(rng, second)}


def bbox_overlaps_cases() -> Iterator[Case]:
    for mode in ('iou', 'iof'):
        for aligned in (False, True):
            for offset in (0, 1):
                for first, second in ((31, 31 if aligned else 17), (0, 0)):
                    yield Case(
                        'bbox_overlaps',
                        f'{mode}_{first}_aligned{aligned}_offset{offset}',
                        partial(_pairs, first=first, second=second),
                        lambda x, m=mode, a=aligned, o=offset: mmcv_ops().bbox_overlaps(
                            x['boxes1'], x['boxes2'], mode=m, aligned=a, offset=o
                        ),
                    )


def box_cases() -> list[Case]:
    """All cases of this file."""
    return [
        *nms_cases(),
        *batched_nms_cases(),
        *softnms_cases(),
        *nms_match_cases(),
        *bbox_overlaps_cases(),
    ]
