"""Triton's kernels against plain loops and plain torch, interpreted on the CPU.

Triton decides when it is imported whether it interprets, so a process of its own does:
this file, which prints the largest differences.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

TESTS = Path(__file__).parents[2]
# Of the largest value; sums are in float32, results are rounded to their type.
BOUNDS = {'float64': 1e-13, 'float32': 1e-5, 'float16': 1e-3, 'bfloat16': 8e-3}
NAMES = ('out0', 'grad_value', 'grad_location', 'grad_attention')


@pytest.fixture(scope='module')
def differences() -> dict[str, float]:
    pytest.importorskip('triton', reason='Triton is for Linux')
    paths = (TESTS.parent, TESTS / 'compat')
    done = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            'TRITON_INTERPRET': '1',
            'PYTHONPATH': os.pathsep.join(map(str, paths)),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('dtype', BOUNDS)
def test_equals_plain_loops(differences, dtype):
    found = {key: gap for key, gap in differences.items() if key.startswith(dtype)}
    # On a pixel the slope to its left and to its right differ.
    assert len(found) == 3 * len(NAMES) - 1
    assert {key: gap for key, gap in found.items() if gap > BOUNDS[dtype]} == {}


def test_equals_plain_torch_at_odd_sizes(differences):
    found = {key: gap for key, gap in differences.items() if key.startswith('odd')}
    assert len(found) == 4 * len(NAMES)
    assert {key: gap for key, gap in found.items() if gap > 1e-5} == {}


def test_what_is_not_there_is_nothing(differences):
    assert differences['outside'] == differences['no number'] == 0


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['fp32', 'bf16', 'fp64'])
def test_compiles_for_a_gpu_that_is_not_there(kind, tmp_path, monkeypatch):
    triton = pytest.importorskip('triton', reason='Triton is for Linux')
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmdet_backbones.compat.ext import attention_triton as kernels

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    real = 'fp64' if kind == 'fp64' else 'fp32'
    fixed = dict(tile=32, wide=32, real=getattr(triton.language, f'float{real[2:]}'))
    types = dict.fromkeys(fixed, 'constexpr') | dict(
        shapes='*i64', starts='*i64', grad_value=f'*{real}'
    )
    arrays = ('value', 'location', 'weight', 'out', 'grad', 'grad_location',
              'grad_weight')  # fmt: skip
    types |= dict.fromkeys(arrays, f'*{kind}')
    for kernel in (kernels._attend, kernels._attend_back):
        signature = {name: types.get(name, 'i32') for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
        done = triton.compile(source, target=GPUTarget('cuda', 90, 32))
        assert done.asm['cubin']
        adds = [line for line in done.asm['ptx'].splitlines() if 'atom.' in line]
        assert all(f'.add.f{real[2:]}' in line for line in adds)
        assert bool(adds) == (kernel is kernels._attend_back)


def _run(given: list[torch.Tensor], grad: np.ndarray) -> list[np.ndarray]:
    from mmdet_backbones.compat.ext import attention_triton

    out = attention_triton.attend(*given)
    back = torch.from_numpy(grad).to(out.dtype).view_as(out)
    grads = attention_triton.attend_back(*given, back)
    return [part.double().numpy() for part in (out, *grads)]


def _of_cases() -> dict[str, float]:
    from ops.case import difference
    from ops.dense_cases import attention_cases

    found = {}
    for name in BOUNDS:
        dtype = getattr(torch, name)
        for case in attention_cases():
            # mmcv's step changes no value, and nobody is told it here.
            if case.name.endswith('_step1'):
                continue
            given = {k: torch.from_numpy(v) for k, v in case.arrays().items()}
            given = {k: v.to(dtype) if v.is_floating_point() else v
                     for k, v in given.items()}  # fmt: skip
            rounded = {k: v.double().numpy() if v.is_floating_point() else v.numpy()
                       for k, v in given.items()}  # fmt: skip
            grad = case.cotangent((*given['location'].shape[:2], 8))
            back = torch.from_numpy(grad).to(dtype).double().numpy()
            expected = case.loops(rounded, back)
            for key, ours in zip(NAMES, _run([*given.values()], grad), strict=True):
                if key == 'out0' or key.removeprefix('grad_') in case.grads:
                    found[f'{name} {case.name} {key}'] = difference(ours, expected[key])
    return found


@dataclasses.dataclass
class Odd:
    """Sizes; levels are (height, width)."""

    batch: int = 1
    queries: int = 3
    heads: int = 1
    channels: int = 5
    levels: tuple[tuple[int, int], ...] = ((1, 1), (7, 2))
    points: int = 1

    def tensors(self) -> list[torch.Tensor]:
        """Float32, places also outside, values that are not contiguous."""
        shapes = torch.tensor(self.levels)
        sizes = shapes.prod(1)
        cells = (self.batch, self.queries, self.heads, len(self.levels), self.points)
        value = torch.randn(self.batch, self.heads, int(sizes.sum()), self.channels)
        return [value.transpose(1, 2), shapes, sizes.cumsum(0) - sizes,
                2 * torch.rand(*cells, 2) - 0.5, torch.rand(cells)]  # fmt: skip


def _of_odd_sizes() -> dict[str, float]:
    from mmdet_backbones.compat.ext import attention
    from ops.case import difference

    odd = dict(
        small=Odd(),
        heads=Odd(batch=2, queries=2, heads=3, channels=33, points=2),
        batch=Odd(batch=0),
        queries=Odd(queries=0),
    )
    found = {}
    torch.manual_seed(0)
    for name, sizes in odd.items():
        given = sizes.tensors()
        out = attention.ms_deform_attn_forward(*given, 64)
        grad = torch.randn_like(out)
        expected = [torch.zeros_like(given[place]) for place in (0, 3, 4)]
        attention.ms_deform_attn_backward(*given, grad, *expected, 64)
        ours = _run(given, grad.numpy())
        for key, one, other in zip(NAMES, ours, (out, *expected), strict=True):
            found[f'odd {name} {key}'] = difference(one, other.numpy())
    return found


def _of_places_outside() -> dict[str, float]:
    value, shapes, starts, location, weight = Odd(queries=4).tensors()
    found = {}
    for name, place in (('outside', -3.0), ('no number', float('nan'))):
        given = [value, shapes, starts, torch.full_like(location, place), weight]
        results = _run(given, np.ones((1, 4, 5), np.float32))
        found[name] = max(float(np.abs(part).max()) for part in results)
    return found


if __name__ == '__main__':
    print(json.dumps(_of_cases() | _of_odd_sizes() | _of_places_outside()))
