"""Operators under autocast: in bfloat16 and float16 as in float32, but for rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ops.case import Case, difference
from ops.cases import CASES

LEARNING = [case for case in CASES if case.grads]
# What is next to a jump, as the largest of two samples, may fall on its other side.
SMOOTH = [
    case
    for case in LEARNING
    if case.id.startswith(('roi_align/avg', 'deform_conv', 'modulated_deform'))
]
# Of the largest value: numbers have 8 digits in base 2.
TOLERANCE = 0.01


def _results(
    case: Case, dtype: torch.dtype, computed: torch.dtype
) -> dict[str, Tensor]:
    """Outputs and gradients for inputs rounded to one type and computed in another."""
    given = {key: torch.from_numpy(value) for key, value in case.arrays().items()}
    given = {
        key: x.to(dtype).to(computed) if x.is_floating_point() else x
        for key, x in given.items()
    }
    for key in case.grads:
        given[key].requires_grad_()
    out = case.call(given)
    out = out[0] if isinstance(out, (tuple, list)) else out
    cotangent = torch.from_numpy(case.cotangent(tuple(out.shape))).to(dtype)
    grads = torch.autograd.grad(
        out, [given[key] for key in case.grads], cotangent.to(out.dtype)
    )
    return {'output': out.detach(), **dict(zip(case.grads, grads, strict=True))}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half], ids=str)
@pytest.mark.usefixtures('our_operators')
def test_operators_have_both_types(dtype):
    for case in LEARNING:
        for key, value in _results(case, dtype, dtype).items():
            assert value.dtype == dtype, f'{case.id} {key}'
            assert value.isfinite().all(), f'{case.id} {key}'


@pytest.mark.parametrize('case', SMOOTH, ids=lambda case: case.id)
@pytest.mark.usefixtures('our_operators')
def test_bfloat16_is_float32_rounded(case):
    ours = _results(case, torch.bfloat16, torch.bfloat16)
    for key, value in _results(case, torch.bfloat16, torch.float32).items():
        gap = difference(ours[key].float().numpy(), value.numpy())
        assert gap <= TOLERANCE, f'{key} differs by {gap:.2e}'
