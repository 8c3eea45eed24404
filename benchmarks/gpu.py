"""What one GPU makes of our nets, of timm's and of mmdet's: one table.

  python benchmarks/gpu.py [ROW ...] [--minutes 6] [--rounds 7] [-o gpu.md]
  python benchmarks/gpu.py --device cpu --small        # a dry run without a GPU

Nothing is downloaded. Random weights from seed 0, equal for all that are compared in a
row; synthetic images; each round runs everybody once, each round in another order;
figures are medians. A training step is forward and backward. `of the product` is the
share of what a matrix product of that type reached in the same process, counted over
convolutions and matrix products of the first net of a row; `of the bandwidth` is the
share of what a copy reached, counted over what all operators of the first net read and
write: whoever fuses operators can come above it. `launches` are what a step sent to the
GPU, a replayed graph being one; without a GPU, the operators that called no other.
`earlier` is what the row took on an
H100 with torch 2.11 before this table existed: mmdet as it comes, and the best of ours.
What fails or takes longer than its share of the time is a row too. In the end the tests
that need a GPU run (`pytest -m cuda`).
"""

import argparse
import copy
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.logging import MMLogger
from speed import CHANNELS_LAST, images, inference, res2nets, training
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.check.trial import random_detector, synthetic_batch
from mmdet_backbones.compat.ext import attention
from mmdet_backbones.engine.layer_decay import fused
from mmdet_backbones.inference.fusion import fastest, fuse_for_inference
from mmdet_backbones.registry import MODELS
from mmdet_backbones.shapes.counting import counting
from mmdet_backbones.speed.nets import PreparedNet, Settings
from mmdet_backbones.speed.timing import time_rounds

ROOT = Path(__file__).resolve().parents[1]
FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
YOLOX = 'yolox/yolox_s_8xb8-300e_coco.py'
RTMDET = 'rtmdet/rtmdet_s_8xb32-300e_coco.py'
FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
DINO = 'dino/dino-4scale_r50_8xb2-12e_coco.py'
# Of an image of 800 x 1066 padded to a multiple of 32, as DINO sees it.
LEVELS = ((100, 134), (50, 67), (25, 34), (13, 17))
# Seconds that the tests shall have.
TESTS = 75
# Seconds to make and to compile one net.
LONGEST = 70
EMPTY = '| | | | | |'


@dataclass(frozen=True)
class Where:
    """Device and sizes of a run."""

    device: str
    small: bool

    @property
    def gpu(self) -> bool:
        return self.device == 'cuda'

    def size(self, *size: int, least: int = 96) -> tuple[int, ...]:
        return tuple(least if self.small else side for side in size)

    def batch(self, count: int) -> int:
        return 1 if self.small else count

    def autocast(self, dtype: torch.dtype | None) -> torch.autocast:
        return torch.autocast(self.device, dtype, enabled=dtype is not None)


@dataclass
class Row:
    """What is compared: makers of nets by name, each called when its turn comes."""

    title: str
    dtype: torch.dtype
    makers: dict[str, Callable[[], PreparedNet]]
    earlier: str = ''
    train: bool = False
    lines: list[str] = field(default_factory=list)


def detector(where: Where, config: str, train: bool = False) -> nn.Module:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    path, _ = Config._get_cfg_path(f'mmdet::{config}', '')
    torch.manual_seed(0)
    net: Any = random_detector(Config.fromfile(path).model)
    net.train(train)
    return net.to(where.device)


def batch_of(
    where: Where, net: Any, count: int, size: tuple[int, ...], least: int = 96
) -> Any:
    boxes = [8] * where.batch(count)
    given = synthetic_batch({}, where.size(*size, least=least), boxes, where.device)
    return net.data_preprocessor(given, net.training)


def predicting(
    where: Where, net: Any, data: Any, dtype: torch.dtype | None = None, mode='predict'
) -> PreparedNet:
    given = (data['inputs'], data['data_samples'] if mode == 'predict' else None)

    def step() -> Any:
        with torch.inference_mode(), where.autocast(dtype):
            return net(*given, mode=mode)

    return PreparedNet('', net, step)


def learning(
    where: Where, net: Any, data: Any, dtype: torch.dtype | None = None
) -> PreparedNet:
    def step() -> None:
        net.zero_grad(set_to_none=True)
        # Some heads write into the samples.
        samples = copy.deepcopy(data['data_samples'])
        with where.autocast(dtype):
            losses = net(data['inputs'], samples, mode='loss')
        net.parse_losses(losses)[0].backward()

    return PreparedNet('', net, step)


def predictions(
    where: Where,
    title: str,
    config: str,
    count: int,
    earlier: str = '',
    compiled: bool = False,
) -> Row:
    plain = detector(where, config)
    data = batch_of(where, plain, count, (640, 640))
    run = partial(predicting, where, data=data)
    last = copy.deepcopy(plain).to(memory_format=CHANNELS_LAST)
    makers = {
        'mmdet as it comes': lambda: run(plain),
        'mmdet, AMP': lambda: run(plain, dtype=FP16 if where.gpu else BF16),
        'ours, --fast': lambda: run(fastest(plain)),
    }
    if where.gpu and compiled:
        makers['ours, folded, float16, reduce-overhead'] = lambda: run(
            fuse_for_inference(last, 'reduce-overhead', dtype=FP16)
        )
    return Row(title, FP16, makers, earlier)


def raw_outputs(where: Where) -> Row:
    plain = detector(where, YOLOX)
    data = batch_of(where, plain, 1, (640, 640))
    run = partial(predicting, where, data=data, mode='tensor')
    last = copy.deepcopy(plain).to(memory_format=CHANNELS_LAST)
    half = FP16 if where.gpu else BF16
    makers = {
        'mmdet, AMP': lambda: run(plain, dtype=half),
        'ours, folded, half': lambda: run(fuse_for_inference(last, dtype=half)),
    }
    for mode in ('cuda-graph', 'reduce-overhead') if where.gpu else ():
        makers[f'ours, folded, half, {mode}'] = lambda mode=mode: run(
            fuse_for_inference(last, mode, dtype=half)
        )
    earlier = 'eager 4.92, CUDA graph 1.65, reduce-overhead 0.77'
    return Row('YOLOX-s raw outputs, 1 x 640', half, makers, earlier)


def res2net(where: Where, train: bool) -> Row:
    peer, host, ours = res2nets('res2net50_26w_4s')
    count, side = where.batch(16), where.size(640)[0]
    x = {last: images(count, side, last).to(where.device) for last in (False, True)}
    make: Any = training if train else inference

    def run(net: nn.Module, last: bool = True) -> PreparedNet:
        net = net.to(where.device)
        if last:
            net.to(memory_format=CHANNELS_LAST)
        prepared = make('', net, x[last])

        def step() -> Any:
            with where.autocast(BF16):
                return prepared.step()

        return PreparedNet('', prepared.net, step)

    def compiled(net: nn.Module, last: bool = True) -> PreparedNet:
        net.compile()
        return run(net, last)

    makers = {
        'timm as it comes': lambda: run(peer, False),
        'mmdet as it comes': lambda: run(host, False),
        'timm, channels-last': lambda: run(copy.deepcopy(peer)),
        'ours, channels-last': lambda: run(ours()),
    }
    if not train:
        folded = partial(fuse_for_inference, dtype=BF16)
        makers['ours, folded'] = lambda: run(folded(ours()))
    if where.gpu:
        makers['timm, channels-last, compiled'] = lambda: compiled(copy.deepcopy(peer))
        if train:
            makers['ours, channels-last, compiled'] = lambda: compiled(ours())
        else:
            on = ours().to(where.device)
            makers['ours, folded, CUDA graph'] = lambda: run(folded(on, 'cuda-graph'))
            makers['ours, folded, compiled'] = lambda: run(folded(ours(), True))
    earlier = (
        'timm 80.6, mmdet 93.8, ours channels-last 62.8'
        if train
        else 'timm 19.1, compiled 11.6, ours folded and compiled 10.4'
    )
    what = 'training step' if train else 'inference'
    return Row(f'Res2Net-50 26w-4s {what}, 16 x 640 bf16', BF16, makers, earlier, train)


def attending(where: Where) -> Row:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    levels = ((5, 7), (3, 4), (2, 2), (1, 1)) if where.small else LEVELS
    shapes = torch.tensor(levels, device=where.device)
    sizes = shapes.prod(1)
    pixels, batch = int(sizes.sum()), where.batch(2)
    starts = sizes.cumsum(0) - sizes
    torch.manual_seed(0)
    given = [
        torch.randn(batch, pixels, 8, 32),
        torch.rand(batch, pixels, 8, 4, 4, 2),
        torch.rand(batch, pixels, 8, 4, 4) / 8,
    ]

    def make(kernels: bool, dtype: torch.dtype) -> PreparedNet:
        value, location, weight = (
            part.to(where.device, dtype).requires_grad_() for part in given
        )
        way: Any = nullcontext if kernels else plain_attention

        def step() -> None:
            with way():
                out = MultiScaleDeformableAttnFunction.apply(
                    value, shapes, starts, location, weight, 64
                )
                torch.autograd.grad(out, (value, location, weight), out)

        return PreparedNet('', nn.Identity(), step)

    makers = {'plain torch': lambda: make(False, FP32)}
    if where.gpu:
        makers |= {
            'ours, Triton': lambda: make(True, FP32),
            'plain torch, float16': lambda: make(False, FP16),
            'ours, Triton, float16': lambda: make(True, FP16),
        }
    title = f'Deformable attention, {batch} x {pixels}, forward and backward'
    return Row(title, FP32, makers, 'plain torch 18.9, 1.2 GiB')


@contextmanager
def plain_attention() -> Iterator[None]:
    with patch.object(attention, '_kernels_for', lambda value: None):
        yield


def dino(where: Where) -> Row:
    net = detector(where, DINO, train=True)
    # Its queries are the best 900 places.
    data = batch_of(where, net, 2, (800, 1088), least=224)

    def plain(dtype: torch.dtype | None = None) -> PreparedNet:
        prepared = learning(where, net, data, dtype)

        def step() -> None:
            with plain_attention():
                prepared.step()

        return PreparedNet('', net, step)

    makers = {'mmdet, attention in plain torch': plain}
    if where.gpu:
        makers['ours, Triton'] = lambda: learning(where, net, data)
        makers['ours, Triton, AMP bf16'] = lambda: learning(where, net, data, BF16)
        makers['ours, Triton, AMP bf16, channels-last'] = lambda: learning(
            where, copy.deepcopy(net).to(memory_format=CHANNELS_LAST), data, BF16
        )
    return Row('DINO R-50 training step, 2 x 800 x 1088', FP32, makers, '389', True)


def faster_training(where: Where) -> Row:
    net = detector(where, FASTER, train=True)
    data = batch_of(where, net, 2, (800, 1088))
    half = FP16 if where.gpu else BF16

    def last(compile: bool = False) -> nn.Module:
        copied: Any = copy.deepcopy(net).to(memory_format=CHANNELS_LAST)
        for part in (copied.backbone, copied.neck) if compile else ():
            part.compile()
        return copied

    makers = {
        'mmdet, TF32': lambda: learning(where, net, data),
        'mmdet, AMP': lambda: learning(where, net, data, half),
        'ours, AMP, channels-last': lambda: learning(where, last(), data, half),
    }
    if where.gpu:
        makers['ours, AMP, channels-last, --compile'] = lambda: learning(
            where, last(True), data, half
        )
    earlier = 'TF32 75.3, AMP 84.0'
    title = 'Faster R-CNN R-50 training step, 2 x 800 x 1088'
    return Row(title, FP16, makers, earlier, True)


def optimiser(where: Where) -> Row:
    net = detector(where, YOLOX if where.small else DINO, train=True)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def make(settings: dict[str, Any]) -> PreparedNet:
        groups = [dict(params=[p]) for p in net.parameters() if p.requires_grad]
        kind = settings.pop('type')
        return PreparedNet('', net, getattr(torch.optim, kind)(groups, **settings).step)

    settings = dict(type='AdamW', lr=1e-9)
    return Row(
        f'AdamW of {"YOLOX-s" if where.small else "DINO"}, a group for each parameter',
        FP32,
        {
            'as it comes': lambda: make(dict(settings)),
            'ours, fused': lambda: make(fused(settings)),
        },
    )


# The most telling first: what comes late may find no time.
ROWS: dict[str, Callable[[Where], Row]] = {
    'attention': attending,
    'optimiser': optimiser,
    'dino': dino,
    'yolox': lambda where: predictions(
        where, 'YOLOX-s predict, 1 x 640', YOLOX, 1, 'mmdet 7.98, ours 5.86', True
    ),
    'raw': raw_outputs,
    'rtmdet': lambda where: predictions(where, 'RTMDet-s predict, 1 x 640', RTMDET, 1),
    'faster': lambda where: predictions(
        where, 'Faster R-CNN R-50 predict, 8 x 640', FASTER, 8, 'mmdet 52.6, ours 43.5'
    ),
    'res2net': partial(res2net, train=False),
    'faster-training': faster_training,
    'res2net-training': partial(res2net, train=True),
}


class Traffic(TorchDispatchMode):
    """Bytes that operators read and write, which views do not."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, Tensor):
                    self.total += leaf.nbytes
        return out


@dataclass
class Peaks:
    """Operations and bytes a second that this device reached."""

    product: dict[torch.dtype, float]
    bandwidth: float

    @classmethod
    def of(cls, where: Where) -> 'Peaks':
        side, count = (256, 2**20) if where.small else (8192, 2**28)
        product = {}
        for dtype in (FP32, FP16, BF16):
            a = torch.randn(side, side, device=where.device, dtype=dtype)
            product[dtype] = 2 * side**3 / shortest(where, lambda a=a: a @ a)
        source = torch.zeros(count, device=where.device)
        target = torch.empty_like(source)
        seconds = shortest(where, lambda: target.copy_(source))
        return cls(product, 2 * source.nbytes / seconds)

    def __str__(self) -> str:
        products = ', '.join(
            f'{str(dtype).removeprefix("torch.")} {rate / 1e12:.3g}'
            for dtype, rate in self.product.items()
        )
        return (
            f'matrix products of {products} TFLOP/s (float32 as TF32 where the device '
            f'has it), copies of {self.bandwidth / 1e12:.3g} TB/s'
        )


def shortest(where: Where, run: Callable[[], Any]) -> float:
    nets = [PreparedNet('', nn.Identity(), run)]
    return min(time_rounds(nets, Settings(rounds=10, device=where.device))[0])


def measure(
    row: Row, where: Where, rounds: int, peaks: Peaks, until: float
) -> list[str]:
    nets: list[PreparedNet] = []
    failed = {}
    for name, make in row.makers.items():
        try:
            with at_most(min(until - time.monotonic(), LONGEST)):
                net = make()
                for _ in range(3):
                    net.step()
            nets.append(PreparedNet(name, net.net, net.step))
        except Exception as error:  # a row, not the end
            failed[name] = told(error)
    found = []
    if nets:
        memory = [peak_memory(net, where) for net in nets]
        sent = [launches(net, where) for net in nets]
        with counting(nets[0].net, row.train) as counter, Traffic() as traffic:
            nets[0].step()
        work = counter.get_total_flops(), traffic.total
        times = time_rounds(nets, Settings(rounds=rounds, device=where.device))
        for net, seconds, *counts in zip(nets, times, sent, memory, strict=True):
            found.append(line(row, net.name, seconds, times[0], counts, work, peaks))
    return found + [f'| {row.title} | {n} | {w} | {EMPTY}' for n, w in failed.items()]


def line(  # type: ignore[no-untyped-def]
    row: Row, name: str, seconds, first, counts, work: tuple[int, int], peaks: Peaks
) -> str:
    sent, mib = counts
    middle = statistics.median(seconds)
    ratio = statistics.median(a / b for a, b in zip(first, seconds, strict=True))
    product = work[0] / middle / peaks.product[row.dtype]
    cells = [
        row.title, name, f'{1e3 * middle:.2f}', f'{ratio:.2f}', f'{sent}',
        f'{mib:.0f}', f'{product:.1%}', f'{work[1] / middle / peaks.bandwidth:.0%}',
        row.earlier,
    ]  # fmt: skip
    row.earlier = ''
    return f'| {" | ".join(cells)} |'


def peak_memory(net: PreparedNet, where: Where) -> float:
    if not where.gpu:
        return float('nan')
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    net.step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def launches(net: PreparedNet, where: Where) -> int:
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * where.gpu
    with profile(activities=kinds) as profiler:
        net.step()
        if where.gpu:
            torch.cuda.synchronize()
    if where.gpu:
        return sum('Launch' in event.name for event in profiler.events())
    return sum(
        event.name.startswith('aten::') and not event.cpu_children
        for event in profiler.events()
    )


def told(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [''])[0]
    return f'{type(error).__name__}: {text[:150]}'.replace('|', '/')


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f'took longer than {seconds:.0f} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(
    names: Sequence[str], where: Where, rounds: int, peaks: Peaks, until: float
) -> Iterator[str]:
    yield (
        '| what | who | ms | first / this | launches | peak MiB | of the product | '
        'of the bandwidth | earlier, ms |'
    )
    yield '|---|---|---|---|---|---|---|---|---|'
    for name in names:
        print(f'{name} ...', file=sys.stderr, flush=True)
        left = until - time.monotonic()
        if left < 5:
            yield f'| {name} | | left out: the time is over | {EMPTY}'
            continue
        try:
            with at_most(left):
                row = ROWS[name](where)
            yield from measure(row, where, rounds, peaks, until)
        except Exception as error:  # a row, not the end
            yield f'| {name} | | {told(error)} | {EMPTY}'
        torch.compiler.reset()
        if where.gpu:
            torch.cuda.empty_cache()


def cuda_tests(until: float) -> str:
    seconds = max(until - time.monotonic(), 30)
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'cuda', '-p',
               'no:cacheprovider', 'tests/inference', 'tests/compat/ops']  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f'took longer than {seconds:.0f} s'
    lines = done.stdout.strip().splitlines()
    bad = [text for text in lines if text.startswith(('FAILED', 'ERROR'))]
    return '\n'.join([*bad, *(lines or done.stderr.splitlines())[-1:]])


def versions(where: Where) -> str:
    found = []
    for name in ('torch', 'triton', 'torchvision', 'timm', 'mmdet', 'numpy'):
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            found.append(f'no {name}')
    card = torch.cuda.get_device_name() if where.gpu else platform.machine()
    return f'{card}; Python {platform.python_version()}, {", ".join(found)}'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'of {", ".join(ROWS)}')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--small', action='store_true', help='tiny sizes: a dry run')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--minutes', type=float, default=6)
    parser.add_argument('--no-tests', action='store_true')
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f'no row {", ".join(unknown)}; there are {", ".join(ROWS)}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('torch sees no GPU: write --device cpu --small for a dry run')
    end = time.monotonic() + 60 * args.minutes
    where = Where(args.device, args.small)
    MODELS.import_from_location()
    # mmengine tells how each parameter was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    torch.set_float32_matmul_precision('high')
    peaks = Peaks.of(where)
    tests = where.gpu and not args.no_tests
    until = end - (TESTS if tests else 0)
    lines: list[str] = []

    def say(*texts: str) -> None:
        # Whoever stops a run keeps what it found until then.
        for text in texts:
            print(text, flush=True)
            lines.append(text)

    say('# One GPU', '')
    if args.small:
        say('A dry run: sizes are tiny.', '')
    say(
        f'{versions(where)}; {peaks}. Medians of {args.rounds} rounds. Written by '
        '`benchmarks/gpu.py`, which says what is measured.',
        '',
    )
    for text in table(args.rows or list(ROWS), where, args.rounds, peaks, until):
        say(text)
    if tests:
        say('', f'`pytest -m cuda`: {cuda_tests(end)}')
    if args.out is not None:
        args.out.write_text('\n'.join([*lines, '']))


if __name__ == '__main__':
    main()
