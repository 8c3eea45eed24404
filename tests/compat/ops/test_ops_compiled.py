"""Our operators against the compiled ones of mmcv, in one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ops.case import Case, compiled_mmcv, difference, operator_modules, substitute
from ops.cases import COMPILED_CASES

if not compiled_mmcv():
    pytest.skip(
        'the mmcv installed here has no compiled operators', allow_module_level=True
    )
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


@pytest.mark.parametrize('case', COMPILED_CASES, ids=lambda case: case.id)
def test_equals_compiled(case: Case, monkeypatch):
    expected = case.run()
    ours = substitute()
    for module in operator_modules():
        assert module.ext_module is not ours
        monkeypatch.setattr(module, 'ext_module', ours)
    results = case.run()
    assert results.keys() == expected.keys()
    for key, value in expected.items():
        if case.exact or value.dtype.kind != 'f':
            np.testing.assert_array_equal(results[key], value, err_msg=key)
        else:
            gap = difference(results[key], value)
            assert gap <= TOLERANCE[case.dtype], f'{key} differs by {gap:.2e}'


def test_compiled_operators_are_left_alone():
    import mmcv._ext

    assert mmcv._ext.__file__.endswith('.so')
    for module in operator_modules():
        assert module.ext_module is mmcv._ext


def test_regions_of_negative_size_raise_in_both(monkeypatch):
    from mmcv.ops import roi_align

    features = torch.ones(1, 1, 4, 4)
    rois = torch.tensor([[0, 3.0, 1, 1, 2]])
    with pytest.raises(RuntimeError):
        roi_align(features, rois, 2, 1.0, 0, 'avg', True)
    for module in operator_modules():
        monkeypatch.setattr(module, 'ext_module', substitute())
    with pytest.raises(ValueError, match='x2 >= x1'):
        roi_align(features, rois, 2, 1.0, 0, 'avg', True)
