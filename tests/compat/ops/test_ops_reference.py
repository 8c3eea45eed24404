"""Our operators under mmcv.ops against stored results and against plain loops.

The stored results are those of mmcv 2.1.0 compiled for the CPU, written by
make_references.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ops.case import Case, difference
from ops.cases import CASES, COMPILED_CASES, LOOP_CASES

FOLDER = Path(__file__).parent / 'reference'
# Largest found: 6.3e-7 and 3.0e-15 (benchmarks/ops_parity.md).
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}

STORED = [case for case in COMPILED_CASES if case.stored]


@cache
def stored_arrays(operator: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f'{operator}.npz') as file:
        return dict(file)


def assert_close(
    case: Case, ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        if case.exact or value.dtype.kind != 'f':
            np.testing.assert_array_equal(ours[key], value, err_msg=key)
        else:
            gap = difference(ours[key], value)
            assert gap <= TOLERANCE[case.dtype], f'{key} differs by {gap:.2e}'


@pytest.mark.parametrize('case', STORED, ids=lambda case: case.id)
@pytest.mark.usefixtures('our_operators')
def test_equals_stored_results(case):
    arrays = stored_arrays(case.operator)
    prefix = f'{case.name}/'
    expected = {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    assert expected, f'{case.id} is not stored: run make_references.py'
    assert int(expected.pop('inputs')) == case.fingerprint(), (
        'this NumPy makes other inputs than the one that made the references'
    )
    assert_close(case, case.run(), expected)


@pytest.mark.parametrize('case', LOOP_CASES, ids=lambda case: case.id)
@pytest.mark.filterwarnings('ignore:This overload of addmm')
@pytest.mark.usefixtures('our_operators')
def test_equals_plain_loops(case):
    assert_close(case, case.run(), case.expected_from_loops())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('operator', sorted({case.operator for case in CASES}))
@pytest.mark.filterwarnings('ignore:This overload of addmm')
@pytest.mark.usefixtures('our_operators')
def test_same_on_cuda(operator):
    # Atomic additions sum in any order.
    bounds = {torch.float32: 1e-5, torch.float64: 1e-12}
    for case in CASES:
        # An empty bin has another largest value on CUDA, as in mmcv's kernels.
        empty_bin = case.name.startswith('max_no_area')
        if case.operator != operator or empty_bin or not case.stored:
            continue
        expected = case.expected_from_loops() if case.loops else case.run()
        ours = case.run('cuda')
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            gap = difference(ours[key], value)
            assert gap <= bounds[case.dtype], f'{case.id} {key} differs by {gap:.2e}'


def test_nothing_is_stored_in_vain():
    known = {case.operator for case in STORED}
    assert {path.stem for path in FOLDER.glob('*.npz')} == known
    for operator in known:
        names = {key.rsplit('/', 1)[0] for key in stored_arrays(operator)}
        assert names == {case.name for case in STORED if case.operator == operator}
