"""Write the table and the plot of docs/speed.md: backbones inside one detector.

    python benchmarks/in_detector.py [--rounds 7]

YOLOX-s, one image of 640 x 640, one CPU thread, channels-last and folded. Random
weights, synthetic images. The part between the two marks of the page is replaced.
Takes about fifteen minutes, most of them in the processes that measure memory.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from distributed_rates import replace

from mmdet_backbones.speed.nets import Settings
from mmdet_backbones.speed.output import environment, progress, save_plot, title
from mmdet_backbones.speed.timing import Measured, benchmark, count_steps

ROOT = Path(__file__).resolve().parents[1]
PAGE, PLOT = ROOT / 'docs' / 'speed.md', ROOT / 'docs' / 'speed.png'
START = '<!-- in a detector: written by benchmarks/in_detector.py -->'
END = '<!-- end of the detector -->'
DETECTOR = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
NAMES = (
    'mmdet/CSPDarknet-s',
    'res2net50_26w_4s',
    'res2net50_v1b',
    'res2next50',
    'resnet18',
    'resnet50',
    'mmpretrain/shufflenet-v2-1x',
    'mmpretrain/mobilenet-v2',
    'mmpretrain/mobilenet-v3-large',
    'mmpretrain/swin-tiny',
    'timm/mobilenetv4_conv_small',
    'timm/tf_efficientnet_lite0',
    'timm/efficientnet_b0',
    'timm/ghostnet_100',
    'timm/regnety_016',
    'timm/repvgg_a0',
    'timm/convnext_tiny',
    'torchvision/mobilenet_v3_small',
    'torchvision/densenet121',
)


def rows(results: list[Measured], settings: Settings, rounds: int) -> str:
    """The part of the page, with the fastest first."""
    where = environment(settings)
    lines = [
        f'{title(settings)}; torch {where["torch"]} on {where["device"]}, medians of '
        f'{rounds} rounds, load average {os.getloadavg()[2]:.1f}. GFLOPs count a '
        'multiply-add as two operations.',
        '',
        '| backbone | parameters | GFLOPs | ms (quartiles) | images/s | peak MiB |',
        '|---|---|---|---|---|---|',
    ]
    for row in sorted(results, key=lambda result: result.latency_ms):
        lines.append(
            f'| {row.name} | {row.parameters / 1e6:.2f} M | {row.gflops:.1f} | '
            f'{row.latency_ms:.0f} ({row.latency_low_ms:.0f} to '
            f'{row.latency_high_ms:.0f}) | {row.images_per_second:.2f} | '
            f'{row.peak_memory_mib:.0f} |'
        )
    return '\n'.join([*lines, '', f'![{title(settings)}]({PLOT.name})'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    settings = Settings(detector=DETECTOR, channels_last=True, fuse=True, rounds=rounds)
    with progress(count_steps(NAMES, settings)) as advance:
        results = benchmark(NAMES, settings, advance)
    save_plot(results, settings, PLOT)
    part = rows(results, settings, rounds)
    PAGE.write_text(replace(PAGE.read_text(), part, START, END))
    print(f'wrote {PAGE.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
