"""Cases of the operators that mmcv has no CPU kernel of: focal loss to CARAFE."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ops import loops
from ops.case import Arrays, Case, mmcv_ops


def _logits(
    rng: np.random.Generator, spread: float, lowest: int, weighted: bool
) -> Arrays:
    arrays = {
        'logits': rng.normal(0, spread, (23, 5)),
        'target': rng.integers(lowest, 6 if lowest == 0 else 5, 23),
    }
    if weighted:
        arrays['weight'] = rng.uniform(0.5, 2, 5)
    return arrays


def focal_loss_cases() -> Iterator[Case]:
    for gamma, alpha in ((2.0, 0.25), (0.0, 0.5), (1.5, 0.6)):
        for weighted in (False, True):
            for spread in (2.0, 60.0):
                name = f'gamma{gamma}_alpha{alpha}_weight{weighted}_spread{spread}'
                yield Case(
                    'sigmoid_focal_loss',
                    name,
                    # 5 stands for the background.
                    partial(_logits, spread=spread, lowest=0, weighted=weighted),
                    lambda x, g=gamma, a=alpha: mmcv_ops().sigmoid_focal_loss(
                        x['logits'], x['target'], g, a, x.get('weight'), 'none'
                    ),
                    dtype=torch.float64,
                    grads=('logits',),
                    loops=partial(loops.sigmoid_focal_loss, gamma=gamma, alpha=alpha),
                )
                if spread > 10 and gamma < 1:
                    # (1 - p) ** (gamma - 1) divides by zero there, in mmcv too.
                    continue
                yield Case(
                    'softmax_focal_loss',
                    name,
                    partial(_logits, spread=spread, lowest=-1, weighted=weighted),
                    lambda x, g=gamma, a=alpha: mmcv_ops().softmax_focal_loss(
                        x['logits'], x['target'], g, a, x.get('weight'), 'sum'
                    ),
                    dtype=torch.float64,
                    grads=('logits',),
                    loops=partial(loops.softmax_focal_loss, gamma=gamma, alpha=alpha),
                )


def _attention(rng: np.random.Generator, reach: float, whole: bool) -> Arrays:
    shapes = np.array([[6, 5], [3, 4], [1, 2]])
    batch, queries, heads, points = 2, 7, 2, 3
    location = rng.uniform(-reach, 1 + reach, (batch, queries, heads, 3, points, 2))
    if whole:
        # Pixel centres, and places exactly one pixel outside.
        steps = rng.integers(-1, 7, location.shape)
        location = (steps + 0.5) / shapes[:, None, ::-1]
    weights = rng.uniform(0, 1, location.shape[:-1])
    return {
        'value': rng.standard_normal((batch, int(shapes.prod(1).sum()), heads, 4)),
        'shapes': shapes,
        'starts': np.array([0, 30, 42]),
        'location': location,
        'attention': weights / weights.sum((3, 4), keepdims=True),
    }


def _attend(x, step: int):
    module = mmcv_ops().multi_scale_deform_attn
    return module.MultiScaleDeformableAttnFunction.apply(
        x['value'], x['shapes'], x['starts'], x['location'], x['attention'], step
    )


def attention_cases() -> Iterator[Case]:
    for name, reach in (('inside', 0.0), ('outside', 0.6)):
        for step in (1, 64):
            yield Case(
                'ms_deform_attn',
                f'{name}_step{step}',
                partial(_attention, reach=reach, whole=False),
                partial(_attend, step=step),
                dtype=torch.float64,
                grads=('value', 'location', 'attention'),
                loops=loops.ms_deform_attn,
            )
    yield Case(
        'ms_deform_attn',
        'pixel_centres',
        partial(_attention, reach=0.0, whole=True),
        partial(_attend, step=64),
        dtype=torch.float64,
        # On a pixel the slope to its left and to its right differ.
        grads=('value', 'attention'),
        loops=loops.ms_deform_attn,
    )


def _upsampled(
    rng: np.random.Generator, kernel: int, groups: int, scale: int
) -> Arrays:
    return {
        'features': rng.standard_normal((2, 4, 4, 5)),
        'masks': rng.uniform(0, 1, (2, groups * kernel**2, scale * 4, scale * 5)),
    }


def carafe_cases() -> Iterator[Case]:
    for operator in ('carafe', 'carafe_naive'):
        for kernel, groups, scale in ((3, 1, 2), (5, 2, 2), (3, 4, 3), (1, 1, 1)):
            yield Case(
                operator,
                f'kernel{kernel}_groups{groups}_scale{scale}',
                partial(_upsampled, kernel=kernel, groups=groups, scale=scale),
                lambda x, o=operator, s=(kernel, groups, scale): getattr(mmcv_ops(), o)(
                    x['features'], x['masks'], *s
                ),
                dtype=torch.float64,
                # mmcv.ops refuses the backward pass of the naive one on the CPU.
                grads=('features', 'masks') if operator == 'carafe' else (),
                loops=partial(loops.carafe, kernel=kernel, groups=groups, scale=scale),
            )


def _masked(
    rng: np.random.Generator, kernel: int, padding: int, share: float
) -> Arrays:
    mask = rng.uniform(0, 1, (1, 7, 9)) < share
    # Pixels that the output does not have cannot be asked for.
    margin = kernel - 1 - 2 * padding
    mask[:, 7 - margin :] = mask[:, :, 9 - margin :] = False
    return {
        'image': rng.standard_normal((1, 3, 7, 9)),
        'mask': mask.astype(np.int64),
        'weight': rng.standard_normal((4, 3, kernel, kernel)),
        'bias': rng.standard_normal(4),
    }


def masked_conv_cases() -> Iterator[Case]:
    for kernel, padding in ((1, 0), (3, 1), (5, 2), (3, 0)):
        for share in (0.0, 0.3, 1.0):
            yield Case(
                'masked_conv2d',
                f'kernel{kernel}_padding{padding}_share{share}',
                partial(_masked, kernel=kernel, padding=padding, share=share),
                lambda x, p=padding: mmcv_ops().masked_conv2d(
                    x['image'], x['mask'], x['weight'], x['bias'], p
                ),
                dtype=torch.float64,
                loops=partial(loops.masked_conv, padding=padding),
            )


def dense_cases() -> list[Case]:
    """All cases of this file."""
    return [
        *focal_loss_cases(),
        *attention_cases(),
        *carafe_cases(),
        *masked_conv_cases(),
    ]
