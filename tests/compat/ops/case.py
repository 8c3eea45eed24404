"""One call of a public operator of mmcv.ops, with inputs and gradients."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pkgutil
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mmdet_backbones  # noqa: F401  (serves mmcv._ext where it is missing)
from mmdet_backbones.compat.ext import build_namespace

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A call with fixed inputs.

    Attributes:
        operator: Group the case is listed under.
        name: What is special about it.
        make: Makes the inputs from a seeded generator.
        call: Calls the operator, returns its outputs.
        dtype: Type of the floating-point inputs.
        grads: Inputs whose gradients are compared; their cotangent belongs to the
            first output.
        loops: Computes outputs and gradients with plain loops, for operators
            that mmcv has no CPU kernel of.
        stored: Whether the results are the same on every machine. The order of
            equal scores is not: the sort of torch depends on the instruction set.
        exact: Whether results have to agree to the last bit (indices and scores).
    """

    operator: str
    name: str
    make: Callable[[np.random.Generator], Arrays]
    call: Callable[[Mapping[str, Tensor]], Any]
    dtype: torch.dtype = torch.float32
    grads: tuple[str, ...] = ()
    loops: Callable[[Arrays, np.ndarray | None], Arrays] | None = None
    stored: bool = True
    exact: bool = False

    @property
    def id(self) -> str:
        return f'{self.operator}/{self.name}'

    def arrays(self) -> Arrays:
        """Inputs, floating-point ones rounded to the type of the case."""
        real = np.float32 if self.dtype == torch.float32 else np.float64
        made = self.make(np.random.default_rng(zlib.crc32(self.id.encode())))
        return {
            key: value.astype(real) if value.dtype.kind == 'f' else value
            for key, value in made.items()
        }

    def cotangent(self, shape: tuple[int, ...]) -> np.ndarray:
        """Gradient that comes back for the first output."""
        values = np.random.default_rng(7).standard_normal(shape)
        return values.astype(np.float32 if self.dtype == torch.float32 else np.float64)

    def fingerprint(self) -> int:
        """Checksum of the inputs: stored results belong to it."""
        total = 0
        for key, value in sorted(self.arrays().items()):
            total = zlib.crc32(key.encode() + value.tobytes(), total)
        return total

    def run(self, device: str = 'cpu') -> Arrays:
        """Call the operator; outputs are 'out0', ..., gradients 'grad_<input>'."""
        inputs = {
            key: torch.from_numpy(value).to(device)
            for key, value in self.arrays().items()
        }
        for key in self.grads:
            inputs[key].requires_grad_()
        outputs = self.call(inputs)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        results = {
            f'out{index}': output.detach().cpu().numpy()
            for index, output in enumerate(outputs)
        }
        if self.grads:
            cotangent = torch.from_numpy(self.cotangent(results['out0'].shape))
            grads = torch.autograd.grad(
                outputs[0], [inputs[key] for key in self.grads], cotangent.to(device)
            )
            for key, grad in zip(self.grads, grads, strict=True):
                results[f'grad_{key}'] = grad.cpu().numpy()
        return results

    def expected_from_loops(self) -> Arrays:
        """The results as plain loops in double precision give them."""
        assert self.loops is not None
        inputs = {
            key: value.astype(np.float64) if value.dtype.kind == 'f' else value
            for key, value in self.arrays().items()
        }
        values = self.loops(inputs, None)
        if not self.grads:
            return values
        cotangent = self.cotangent(values['out0'].shape).astype(float)
        wanted = ('out0', *(f'grad_{key}' for key in self.grads))
        results = self.loops(inputs, cotangent)
        return {key: results[key] for key in wanted}


def substitute() -> ModuleType:
    """A module with our operators, whatever ``mmcv._ext`` is here."""
    module = ModuleType('mmdet_backbones_substitute')
    module.__dict__.update(build_namespace())
    return module


def mmcv_ops() -> ModuleType:
    """mmcv.ops, imported when a case runs: after mmdet_backbones."""
    return importlib.import_module('mmcv.ops')


def operator_modules() -> list[ModuleType]:
    """The modules of mmcv.ops that call ``mmcv._ext``."""
    names = [item.name for item in pkgutil.iter_modules(mmcv_ops().__path__)]
    modules = [importlib.import_module(f'mmcv.ops.{name}') for name in names]
    found = [module for module in modules if hasattr(module, 'ext_module')]
    assert len(found) > 40, 'mmcv.ops looks different from what is known'
    return found


def compiled_mmcv() -> bool:
    """Whether the installed mmcv was compiled with its operators."""
    if 'mmcv._ext' in sys.modules:
        loader = sys.modules['mmcv._ext'].__loader__
    else:
        spec = importlib.util.find_spec('mmcv._ext')
        loader = spec.loader if spec else None
    return isinstance(loader, importlib.machinery.ExtensionFileLoader)


def difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference, relative to the largest value if that is over 1."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    if ours.size == 0:
        return 0.0
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(reference))
    gap = np.nan_to_num(np.abs(ours - reference)).max()
    return float(gap / max(1.0, np.nan_to_num(np.abs(reference)).max()))
