"""Show levels, parameters and multiply-adds of one backbone; nothing is allocated."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.catalog.inspection import (
    Inspection,
    inspect_backbone,
    level_table,
    stage_table,
    weights_table,
)
from mmdet_backbones.errors import run
from mmdet_backbones.levels import describe_levels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', help='source/model, or the name of one of our own nets')
    parser.add_argument('--size', nargs=2, type=int, default=(640, 640),
                        metavar=('H', 'W'))  # fmt: skip
    parser.add_argument('--in-channels', type=int, default=3)
    parser.add_argument('--json', action='store_true', help='print JSON, no tables')
    return parser.parse_args()


def print_inspection(found: Inspection) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    print(f'{found.name}: {dict(found.config)}\n')
    console.print(level_table(found))
    print()
    console.print(stage_table(found))
    height, width = found.size
    print(
        f'\n{found.macs / 1e9:.2f} GMACs at {height} x {width} (multiply-adds of one '
        'image, convolutions and matrix products; FLOPs are twice that)'
    )
    if found.weights:
        print()
        console.print(weights_table(found))
    if found.declared:
        print(f'It declares other levels: {describe_levels(found.declared)}')


def main() -> None:
    args = parse_args()
    found = inspect_backbone(args.name, tuple(args.size), args.in_channels)
    if args.json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        print_inspection(found)


if __name__ == '__main__':
    sys.exit(run(main))
