"""Cases of the operators on regions of interest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ops import loops
from ops.case import Arrays, Case, mmcv_ops

_SIZE = (3, 4, 13, 18)


def _regions(name: str, rng: np.random.Generator) -> np.ndarray:
    """Regions (R, 5) on a 13 x 18 map at a quarter of the image's size."""
    height, width = 4 * _SIZE[2], 4 * _SIZE[3]
    corner = rng.uniform((0, 0), (width * 0.7, height * 0.7), (7, 2))
    size = rng.uniform(3, 30, (7, 2))
    boxes = np.concatenate((corner, corner + size), axis=1)
    # Image 1 of the three has no region.
    image = np.array([2, 0, 0, 2, 2, 0, 2.0])
    if name == 'outside':
        boxes[:4] += np.array([-25, -20, -25, -20])
        boxes[4:] += np.array([30, 25, 30, 25])
        boxes[0] = [-90, -90, -60, -60]
        boxes[1] = [-9, -9, width + 9, height + 9]
    if name == 'whole_pixels':
        boxes = boxes.round()
    if name == 'no_area':
        boxes[0, 2:] = boxes[0, :2]
        boxes[1, 2] = boxes[1, 0]
        boxes[2, 3] = boxes[2, 1]
    if name == 'border':
        boxes[0] = [-2, -2, 2, 2]
        boxes[1] = [width - 4, height - 4, width, height]
        boxes[2] = [0, 0, width, height]
    if name == 'none':
        boxes, image = boxes[:0], image[:0]
    return np.concatenate((image[:, None], boxes), axis=1)


def _inputs(name: str, rng: np.random.Generator) -> Arrays:
    return {'features': rng.standard_normal(_SIZE), 'rois': _regions(name, rng)}


_PLACES = ('inside', 'outside', 'whole_pixels', 'no_area', 'border', 'none')


def _align_case(
    place: str,
    mode: str,
    aligned: bool,
    ratio: int,
    pooled: tuple[int, int] = (3, 2),
    dtype: torch.dtype = torch.float32,
    scale: float = 0.25,
) -> Case:
    suffix = '' if dtype == torch.float32 else '_float64'
    return Case(
        'roi_align',
        f'{mode}_{place}_aligned{aligned}_ratio{ratio}_{pooled}_{scale:.3f}{suffix}',
        partial(_inputs, place),
        lambda x: mmcv_ops().roi_align(
            x['features'], x['rois'], pooled, scale, ratio, mode, aligned
        ),
        dtype=dtype,
        grads=('features',),
    )


def roi_align_cases() -> Iterator[Case]:
    for mode in ('avg', 'max'):
        for place in _PLACES:
            for aligned in (False, True):
                for ratio in (0, 2):
                    yield _align_case(place, mode, aligned, ratio)
        yield _align_case('inside', mode, True, 0, pooled=(7, 5))
        yield _align_case('outside', mode, True, 3, pooled=(1, 1))
        for place in ('inside', 'outside'):
            yield _align_case(place, mode, True, 0, dtype=torch.float64)
        yield _align_case('inside', mode, True, 2, dtype=torch.float64, scale=1 / 12)


def roi_pool_cases() -> Iterator[Case]:
    for place in _PLACES:
        for pooled in ((3, 2), (7, 7)):
            yield Case(
                'roi_pool',
                f'{place}_{pooled}',
                partial(_inputs, place),
                lambda x, p=pooled: mmcv_ops().roi_pool(
                    x['features'], x['rois'], p, 0.25
                ),
                dtype=torch.float64,
                grads=('features',),
                loops=partial(loops.roi_pool, pooled=pooled, scale=0.25),
            )


def _displaced(name: str, spread: float, rng: np.random.Generator) -> Arrays:
    inputs = _inputs(name, rng)
    shape = (len(inputs['rois']), 2, 3, 2)
    return {**inputs, 'offset': rng.normal(0, spread, shape)}


def deform_roi_pool_cases() -> Iterator[Case]:
    for place in ('inside', 'outside', 'no_area', 'none'):
        for ratio in (0, 2):
            for spread in (1.0, 20.0):
                yield Case(
                    'deform_roi_pool',
                    f'{place}_ratio{ratio}_spread{spread}',
                    partial(_displaced, place, spread),
                    lambda x, r=ratio: mmcv_ops().deform_roi_pool(
                        x['features'], x['rois'], x['offset'], (3, 2), 0.25, r, 0.1
                    ),
                    dtype=torch.float64,
                    grads=('features', 'offset') if place != 'none' else (),
                    loops=partial(
                        loops.deform_roi_pool, pooled=(3, 2), scale=0.25, ratio=ratio
                    ),
                )
    yield Case(
        'deform_roi_pool',
        'no_offset',
        partial(_inputs, 'inside'),
        lambda x: mmcv_ops().deform_roi_pool(
            x['features'], x['rois'], None, (3, 2), 0.25, 2, 0.1
        ),
        dtype=torch.float64,
        grads=('features',),
        loops=partial(loops.deform_roi_pool, pooled=(3, 2), scale=0.25, ratio=2),
    )


def roi_cases() -> list[Case]:
    """All cases of this file."""
    return [*roi_align_cases(), *roi_pool_cases(), *deform_roi_pool_cases()]
