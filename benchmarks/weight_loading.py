"""Time and memory of loading pretrained weights, against torch's own two calls.

  python benchmarks/weight_loading.py [--rounds 7] [-o weight_loading.md]

Both load one file of a ResNet-101 with its classifier, 45 million random parameters
from seed 0, into our ResNet. `torch` is `torch.load(weights_only=True)` and
`load_state_dict`; `ours` is `load_pretrained`: read, sha256, look for NaN, recognise
the names, compare shapes, copy, report.

Each load runs in a process of its own, the two in turn, with the file in the page cache
and after a load of a small file, so that no import counts. `first` is the load with
which a training starts. `again` loads the same file into the same net five times more:
torch then uses memory that it has already, and we know the sha256.
CPU time includes the thread that hashes; time comes close to it on a busy machine.
Peak memory is that of the first load less what was resident before the net was built:
the net, the file and whatever copies there are.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MODES = ('torch', 'ours')


def make(path: Path) -> None:
    """Write the large checkpoint and, beside it, a small one for the first load."""
    import torch
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.resnet101(weights=None).state_dict(), path)
    torch.save(models.resnet18(weights=None).state_dict(), path.with_name('small.pth'))


def loaders(depth: int) -> dict[str, Callable[[Path], object]]:
    """Build a net, and the two ways to load a file into it."""
    import torch

    from mmdet_backbones.backbones.residual.resnet import ResNet
    from mmdet_backbones.weights import load_pretrained

    torch.set_num_threads(1)
    net = ResNet(depth=depth)
    return {
        'torch': lambda path: net.load_state_dict(
            torch.load(path, weights_only=True), strict=False
        ),
        'ours': lambda path: load_pretrained(net, str(path)),
    }


def load(path: Path, mode: str) -> dict[str, float]:
    """Load in this process and measure."""
    loaders(18)[mode](path.with_name('small.pth'))
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    before = pages * resource.getpagesize()
    step = loaders(101)[mode]
    with path.open('rb') as file:
        while file.read(1 << 20):
            pass
    first = _time(step, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    again = [_time(step, path) for _ in range(5)]
    return {
        'first, time (ms)': first[0],
        'first, CPU time (ms)': first[1],
        'again, time (ms)': statistics.median(wall for wall, _ in again),
        'again, CPU time (ms)': statistics.median(cpu for _, cpu in again),
        'peak memory / file': (peak - before) / path.stat().st_size,
    }


def _time(step: Callable[[Path], object], path: Path) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    step(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return 1000 * wall, 1000 * cpu


def measure(rounds: int) -> str:
    from rich.progress import track

    results: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'resnet101.pth'
        _run('make', path)
        for number in track(range(rounds), 'Loading'):
            for mode in MODES if number % 2 else MODES[::-1]:
                results[mode].append(json.loads(_run(mode, path)))
        return table(results, path.stat().st_size / 1e6)


def _run(job: str, path: Path) -> str:
    # This process holds no weights: a child's peak starts from what its parent has.
    done = subprocess.run(
        [sys.executable, __file__, '--job', job, '--file', str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.splitlines()[-1] if done.stdout else ''


def table(results: dict[str, list[dict[str, float]]], size: float) -> str:
    """Write the medians, with the smallest and largest, as Markdown."""
    from importlib.metadata import version

    lines = [
        '# Loading pretrained weights',
        '',
        f'A file of {size:.1f} MB; medians of {len(results["ours"])} processes each, '
        f'with the smallest and largest; torch {version("torch")}, Python '
        f'{platform.python_version()}, one thread for operators, {os.cpu_count()} '
        f'cores, load average meanwhile {os.getloadavg()[1]:.1f}. Written by '
        '`benchmarks/weight_loading.py`, which says what is measured.',
        '',
        '| figure | torch | ours | ours / torch |',
        '|---|---|---|---|',
    ]
    for figure in results['ours'][0]:
        digits = 0 if 'ms' in figure else 2
        values = {m: [run[figure] for run in results[m]] for m in MODES}
        middle = {m: statistics.median(values[m]) for m in MODES}
        cells = [
            f'{middle[m]:.{digits}f} ({min(values[m]):.{digits}f} to '
            f'{max(values[m]):.{digits}f})'
            for m in MODES
        ]
        ratio = middle['ours'] / middle['torch']
        lines.append(f'| {figure} | {" | ".join(cells)} | {ratio:.2f} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('-o', '--out', type=Path)
    parser.add_argument('--job', choices=('make', *MODES), help=argparse.SUPPRESS)
    parser.add_argument('--file', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job == 'make':
        make(args.file)
    elif args.job:
        print(json.dumps(load(args.file, args.job)))
    else:
        text = measure(args.rounds)
        print(text)
        if args.out is not None:
            args.out.write_text(text)


if __name__ == '__main__':
    main()
