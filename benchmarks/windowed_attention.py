"""Time and memory of a plain ViT at a detector's size, in windows and without.

  python benchmarks/windowed_attention.py [--rounds 3] [-o windowed_attention.md]

ViT-S/16 (`timm/vit_small_patch16_224`) under `TIMMBackbone`, one image of 800 x 1333,
4,200 patches; random weights and a random image from seed 0, one thread. `all tokens`
has every block look at the whole image, `windows` 8 of 12 at windows of 14 x 14
(`window_size=14, global_blocks=4`). `materialised` writes down each matrix of attention
as plain torch does (timm's `fused_attn` off), `fused` leaves that to torch's
`scaled_dot_product_attention`, timm's default.

A forward pass without gradients, and a step of training: forward in training mode, sum
of the map, backward, all weights trained. Each way runs in processes of its own, all of
them in turn, after a pass and a step on a small image, so that no import counts. Time
is that of the processor, which a busy machine changes least. Peak memory is that of the
process less what was resident when the net stood: activations, and gradients in a step.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

SIZE = (800, 1333)
WINDOWS = dict(window_size=14, global_blocks=4)
WAYS = {
    'all tokens, materialised': (False, {}),
    'all tokens, fused': (True, {}),
    'windows, materialised': (False, WINDOWS),
    'windows, fused': (True, WINDOWS),
}
FIGURES = ('forward (s)', 'forward (MiB)', 'step (s)', 'step (MiB)')
FIRST, *_ = WAYS


def look(way: str) -> dict[str, float]:
    """Run one way in this process and measure."""
    import torch
    from timm.layers import set_fused_attn

    from mmdet_backbones.adapters.timm.backbone import TIMMBackbone

    torch.set_num_threads(1)
    torch.manual_seed(0)
    fused, arguments = WAYS[way]
    set_fused_attn(fused)
    net = TIMMBackbone('vit_small_patch16_224', out_strides=(16,), **arguments)
    small, large = torch.rand(1, 3, 64, 64), torch.rand(1, 3, *SIZE)

    def forward(image: torch.Tensor) -> None:
        with torch.no_grad():
            net.eval()(image)

    def step(image: torch.Tensor) -> None:
        net.zero_grad()
        net.train()(image)[0].sum().backward()

    forward(small), step(small)
    found = {}
    # The step comes last: it holds more, and a peak is not forgotten.
    for name, run in (('forward', forward), ('step', step)):
        found[f'{name} (s)'], found[f'{name} (MiB)'] = _measure(run, large)
    return found


def _measure(run: Callable, image: object) -> tuple[float, float]:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    start = time.process_time()
    run(image)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, (peak - pages * resource.getpagesize()) / 2**20


def measure(rounds: int) -> str:
    """Run all ways in turn, and write the table."""
    from rich.progress import track

    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in track(range(rounds), 'Looking'):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            results[way].append(json.loads(_run(way)))
    return table(results)


def _run(way: str) -> str:
    # This process holds nothing: a child's peak starts from what its parent has.
    done = subprocess.run(
        [sys.executable, __file__, '--way', way],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.splitlines()[-1]


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Write the medians and how they compare with the first way, as Markdown."""
    middle = {
        way: {name: statistics.median(run[name] for run in runs) for name in FIGURES}
        for way, runs in results.items()
    }
    count = len(results[FIRST])
    said = 'one process' if count == 1 else f'medians of {count} processes'
    lines = [
        '# A plain ViT in windows',
        '',
        f'ViT-S/16 on an image of {SIZE[0]} x {SIZE[1]}; {said} of each way, in '
        f'brackets how many times less than '
        f'{FIRST}; torch {version("torch")}, timm {version("timm")}, one thread. '
        'Written by `benchmarks/windowed_attention.py`, which says what is measured.',
        '',
        f'| attention | {" | ".join(FIGURES)} |',
        f'|---|{"---|" * len(FIGURES)}',
    ]
    for way, values in middle.items():
        cells = [
            f'{values[name]:.{2 if "(s)" in name else 0}f} '
            f'({middle[FIRST][name] / values[name]:.1f})'
            for name in FIGURES
        ]
        lines.append(f'| {way} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('-o', '--out', type=Path)
    parser.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(look(args.way)))
        return
    text = measure(args.rounds)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
