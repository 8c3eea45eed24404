"""Compare the operators of mmdet_backbones with the compiled ones of mmcv.

Run it where mmcv was compiled with its operators, on a machine that does nothing
else; it rewrites benchmarks/ops_parity.md:

    python benchmarks/ops_parity.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'compat'))

from ops.case import Case, compiled_mmcv, mmcv_ops, operator_modules, substitute
from ops.cases import CASES

OUT = Path(__file__).with_suffix('.md')
HEADER = """\
# Operators on torchvision against compiled ones

Written by `python benchmarks/ops_parity.py`. mmcv {mmcv} compiled for the CPU, \
torch {torch}, torchvision {torchvision}, {machine}.

## Differences

Largest absolute difference over all cases of `tests/compat/ops`, outputs and \
gradients. Where mmcv has no CPU kernel, the reference is the formula of its CUDA \
kernel as plain loops in double precision. Indices (nms, nms_match, soft_nms) are equal.

| operator | reference | cases | float32 outputs | float32 gradients \
| float64 outputs | float64 gradients |
|---|---|---|---|---|---|---|
"""
TIMES = """
## Times

Median of {rounds} calls in turn, torch.set_num_threads({threads}), in milliseconds \
(smallest to largest in brackets). A ratio under 1 means ours is faster. Load of the \
{cores} cores before the start: {load:.1f}.

| call | ours | compiled | ratio |
|---|---|---|---|
"""


@contextlib.contextmanager
def served_by(ours: ModuleType) -> Iterator[None]:
    """mmcv.ops on our operators for a while."""
    modules = operator_modules()
    before = [module.ext_module for module in modules]
    try:
        for module in modules:
            module.ext_module = ours
        yield
    finally:
        for module, ext in zip(modules, before, strict=True):
            module.ext_module = ext


def largest_gaps(cases: list[Case], ours: ModuleType) -> dict[tuple, float]:
    """Largest absolute differences by (type, is it a gradient)."""
    gaps: dict[tuple, float] = {}
    for case in cases:
        expected = case.expected_from_loops() if case.loops else case.run()
        with served_by(ours):
            results = case.run()
        for key, value in expected.items():
            gap = 0.0
            if value.size:
                gap = float(np.nan_to_num(np.abs(results[key] - value)).max())
            kind = (case.dtype, key.startswith('grad_'))
            gaps[kind] = max(gaps.get(kind, 0.0), gap)
    return gaps


def parity_rows(ours: ModuleType) -> Iterator[str]:
    for operator in dict.fromkeys(case.operator for case in CASES):
        cases = [case for case in CASES if case.operator == operator]
        gaps = largest_gaps(cases, ours)
        kinds = [(d, g) for d in (torch.float32, torch.float64) for g in (False, True)]
        cells = [f'{gaps[kind]:.1e}' if kind in gaps else '-' for kind in kinds]
        source = 'loops' if cases[0].loops else 'mmcv'
        yield f'| {operator} | {source} | {len(cases)} | {" | ".join(cells)} |'


def timed_calls() -> dict[str, Callable[[], object]]:
    """The calls that take time in a detector, at the sizes of one."""
    torch.manual_seed(0)
    ops = mmcv_ops()
    corner = torch.rand(2000, 2) * 700
    boxes = torch.cat((corner, corner + 8 + torch.rand(2000, 2) * 120), dim=1)
    scores = torch.rand(2000)
    features = torch.randn(2, 256, 50, 84, requires_grad=True)
    rois = torch.cat((torch.randint(0, 2, (512, 1)), boxes[:512]), dim=1)
    x = torch.randn(1, 128, 50, 84, requires_grad=True)
    offset = torch.randn(1, 18, 50, 84, requires_grad=True)
    mask = torch.rand(1, 9, 50, 84, requires_grad=True)
    weight = torch.randn(128, 128, 3, 3, requires_grad=True)

    def align(mode: str) -> torch.Tensor:
        return ops.roi_align(features, rois, 7, 1 / 16, 0, mode, True)

    def deform() -> torch.Tensor:
        return ops.deform_conv2d(x, offset, weight, 1, 1)

    def modulated() -> torch.Tensor:
        return ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)

    return {
        'nms, 2000 boxes': lambda: ops.nms(boxes, scores, 0.7),
        'soft_nms, 2000 boxes, linear': lambda: ops.soft_nms(boxes, scores),
        'nms_match, 2000 boxes': lambda: ops.nms_match(
            torch.cat((boxes, scores[:, None]), dim=1), 0.7
        ),
        'roi_align, 512 RoIs x 256 channels': lambda: align('avg'),
        'roi_align and its backward pass': lambda: align('avg').sum().backward(),
        'roi_align, maximum': lambda: align('max'),
        'deform_conv2d, 128 channels, 50 x 84': deform,
        'deform_conv2d and its backward pass': lambda: deform().sum().backward(),
        'modulated_deform_conv2d, the same': modulated,
        'modulated_deform_conv2d and its backward pass': lambda: (
            modulated().sum().backward()
        ),
    }


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def summary(values: list[float]) -> str:
    middle = statistics.median(values)
    return f'{middle:.1f} ({min(values):.1f} to {max(values):.1f})'


def time_rows(ours: ModuleType, rounds: int) -> Iterator[str]:
    for name, call in timed_calls().items():
        first: list[float] = []
        second: list[float] = []
        # The first round warms up.
        for _ in range(rounds + 1):
            with served_by(ours):
                first.append(milliseconds(call))
            second.append(milliseconds(call))
        first, second = first[1:], second[1:]
        ratio = statistics.median(first) / statistics.median(second)
        yield f'| {name} | {summary(first)} | {summary(second)} | {ratio:.2f} |'
    yield attention_row(ours, rounds)


def attention_row(ours: ModuleType, rounds: int) -> str:
    """mmcv runs plain PyTorch on the CPU; ours is what a GPU would run."""
    module = mmcv_ops().multi_scale_deform_attn
    shapes = torch.tensor([[50, 84], [25, 42], [13, 21], [7, 11]])
    starts = torch.cat((torch.tensor([0]), shapes.prod(1).cumsum(0)[:-1]))
    value = torch.randn(1, int(shapes.prod(1).sum()), 8, 32)
    location = torch.rand(1, 900, 8, 4, 4, 2)
    weights = torch.rand(1, 900, 8, 4, 4)
    calls: list[Callable[[], object]] = [
        lambda: ours.ms_deform_attn_forward(
            value, shapes, starts, location, weights, 64
        ),
        lambda: module.multi_scale_deformable_attn_pytorch(
            value, shapes, location, weights
        ),
    ]
    times = [[milliseconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    first, second = (list(column) for column in zip(*times, strict=True))
    ratio = statistics.median(first) / statistics.median(second)
    name = "ms_deform_attn, 900 queries (against mmcv's plain PyTorch)"
    return f'| {name} | {summary(first)} | {summary(second)} | {ratio:.2f} |'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=9, help='timed calls each')
    parser.add_argument('--threads', type=int, default=1, help='for the times')
    parser.add_argument('--out', type=Path, default=OUT)
    args = parser.parse_args()
    if not compiled_mmcv():
        print('The mmcv installed here has no compiled operators.', file=sys.stderr)
        return 1
    warnings.filterwarnings('ignore', message='This overload of addmm')
    import mmcv

    ours = substitute()
    load = os.getloadavg()[0]
    machine = f'{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}'
    text = HEADER.format(
        mmcv=mmcv.__version__,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        machine=machine,
    )
    torch.set_num_threads(1)
    text += '\n'.join(parity_rows(ours)) + '\n'
    torch.set_num_threads(args.threads)
    text += TIMES.format(
        rounds=args.rounds, threads=args.threads, cores=os.cpu_count(), load=load
    )
    text += '\n'.join(time_rows(ours, args.rounds)) + '\n'
    args.out.write_text(text)
    print(text)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
