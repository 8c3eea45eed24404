"""Lets a test call mmcv.ops with our operators under it, compiled or not."""

from __future__ import annotations

import pytest
import torch

from ops.case import operator_modules, substitute


@pytest.fixture
def our_operators(monkeypatch):
    """Our operators under mmcv.ops, in the place of compiled ones too."""
    ours = substitute()
    for module in operator_modules():
        monkeypatch.setattr(module, 'ext_module', ours)
    return ours


@pytest.fixture(autouse=True)
def _one_thread():
    # Sums in another order would hide behind the tolerances.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
