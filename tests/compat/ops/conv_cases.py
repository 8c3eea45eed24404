"""Cases of the deformable convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ops.case import Arrays, Case, mmcv_ops

# name: what differs from a 3 x 3 convolution of 4 channels, padding 1.
_VARIANTS: dict[str, dict] = {
    'plain': {},
    'groups': {'groups': 2},
    'deform_groups': {'deform_groups': 2},
    'both_groups': {'groups': 2, 'deform_groups': 4},
    'stride': {'stride': 2},
    'stride_pair': {'stride': (2, 1), 'padding': (0, 1)},
    'dilation': {'dilation': 2, 'padding': 2},
    'no_padding': {'padding': 0},
    'wide_kernel': {'kernel': (1, 3), 'padding': (0, 1)},
    'pointwise': {'kernel': (1, 1), 'padding': 0},
    # With offsets of zero the padding lies exactly one pixel outside.
    'zero_offsets': {'spread': 0.0},
    'zero_offsets_padding2': {'spread': 0.0, 'padding': 2},
    'whole_offsets': {'spread': 2.0, 'whole': True},
    'far_offsets': {'spread': 30.0},
    'one_image': {'batch': 1},
}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _geometry(variant: dict) -> dict:
    return {
        'stride': _pair(variant.get('stride', 1)),
        'padding': _pair(variant.get('padding', 1)),
        'dilation': _pair(variant.get('dilation', 1)),
        'groups': variant.get('groups', 1),
        'deform_groups': variant.get('deform_groups', 1),
    }


def _inputs(variant: dict, modulated: bool, rng: np.random.Generator) -> Arrays:
    shape = (variant.get('batch', 2), 4, 5, 7)
    kernel = variant.get('kernel', (3, 3))
    geometry = _geometry(variant)
    out = [
        (shape[axis + 2] + 2 * geometry['padding'][axis] - span) // stride + 1
        for axis, stride in enumerate(geometry['stride'])
        for span in [geometry['dilation'][axis] * (kernel[axis] - 1) + 1]
    ]
    taps = geometry['deform_groups'] * kernel[0] * kernel[1]
    offset = rng.normal(0, 1, (shape[0], 2 * taps, *out)) * variant.get('spread', 1.5)
    arrays = {
        'x': rng.standard_normal(shape),
        'offset': offset.round() if variant.get('whole') else offset,
        'weight': rng.standard_normal((4, 4 // geometry['groups'], *kernel)),
    }
    if modulated:
        arrays['mask'] = rng.uniform(0, 1, (shape[0], taps, *out))
        arrays['bias'] = rng.standard_normal(4)
    return arrays


def deform_conv_cases() -> Iterator[Case]:
    for name, variant in _VARIANTS.items():
        for dtype in (torch.float32, torch.float64):
            yield Case(
                'deform_conv2d',
                f'{name}_{str(dtype)[6:]}',
                partial(_inputs, variant, False),
                partial(_deform_conv, geometry=_geometry(variant)),
                dtype=dtype,
                grads=('x', 'offset', 'weight'),
            )
    for step in (1, 2):
        yield Case(
            'deform_conv2d',
            f'im2col_step{step}',
            partial(_inputs, {'batch': 4}, False),
            partial(_deform_conv, geometry=_geometry({}), im2col_step=step),
            grads=('x', 'offset', 'weight'),
        )
    for grads in (('x',), ('offset',), ('weight',)):
        yield Case(
            'deform_conv2d',
            f'only_grad_{grads[0]}',
            partial(_inputs, {}, False),
            partial(_deform_conv, geometry=_geometry({})),
            grads=grads,
        )


def _deform_conv(x, geometry: dict, im2col_step: int = 32):
    return mmcv_ops().deform_conv2d(
        x['x'],
        x['offset'],
        x['weight'],
        *geometry.values(),
        False,
        im2col_step,
    )


def modulated_deform_conv_cases() -> Iterator[Case]:
    for name, variant in _VARIANTS.items():
        for dtype in (torch.float32, torch.float64):
            yield Case(
                'modulated_deform_conv2d',
                f'{name}_{str(dtype)[6:]}',
                partial(_inputs, variant, True),
                partial(_modulated, geometry=_geometry(variant)),
                dtype=dtype,
                grads=('x', 'offset', 'mask', 'weight', 'bias'),
            )
    yield Case(
        'modulated_deform_conv2d',
        'no_bias',
        partial(_inputs, {}, True),
        partial(_modulated, geometry=_geometry({}), with_bias=False),
        grads=('x', 'offset', 'mask', 'weight'),
    )


def _modulated(x, geometry: dict, with_bias: bool = True):
    return mmcv_ops().modulated_deform_conv2d(
        x['x'],
        x['offset'],
        x['mask'],
        x['weight'],
        x['bias'] if with_bias else None,
        *geometry.values(),
    )


def _layer_inputs(size: tuple[int, int], rng: np.random.Generator) -> Arrays:
    return {
        'x': rng.standard_normal((2, 4, *size)),
        'offset': rng.standard_normal((2, 18, *size)),
        'weight': rng.standard_normal((6, 4, 3, 3)),
    }


def _layer(x, name: str):
    """A new layer, as the start of a training sees it: its offsets are zero."""
    layer = getattr(mmcv_ops(), name)(4, 6, 3, padding=1).to(x['x'])
    with torch.no_grad():
        layer.weight.copy_(x['weight'])
    if name == 'DeformConv2d':
        return layer(x['x'], x['offset'])
    out = layer(x['x'])
    grad = torch.autograd.grad(
        out.square().sum(), layer.conv_offset.weight, retain_graph=True
    )
    return out, grad[0]


def layer_cases() -> Iterator[Case]:
    for name in ('DeformConv2dPack', 'ModulatedDeformConv2dPack'):
        yield Case(
            name,
            'new_layer',
            partial(_layer_inputs, (8, 11)),
            partial(_layer, name=name),
            grads=('x',),
        )
    yield Case(
        'DeformConv2d',
        'image_smaller_than_kernel',
        partial(_layer_inputs, (2, 2)),
        partial(_layer, name='DeformConv2d'),
        grads=('x', 'offset'),
    )


def conv_cases() -> list[Case]:
    """All cases of this file."""
    return [*deform_conv_cases(), *modulated_deform_conv_cases(), *layer_cases()]
