"""Print the learning rates that a config gets on different numbers of GPUs."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine import launch
from mmdet_backbones.engine.lr_scaling import tabulate_rates
from mmdet_backbones.errors import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_config_flags(parser)
    parser.add_argument('--gpus', nargs='+', type=int, default=[1, 2, 4, 8])
    parser.add_argument('--samples-per-gpu', type=int, metavar='IMAGES',
                        help='instead of those of the config')  # fmt: skip
    parser.add_argument('--json', action='store_true')
    return parser.parse_args()


def print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'{rows[0]["rule"]} rule, rates of {rows[0]["base"]} images')
    for column in ('GPUs', 'images per step', *rows[0]['rates']):
        table.add_column(column, justify='right', no_wrap=True)
    for row in rows:
        rates = (f'{rate:.6g}' for rate in row['rates'].values())
        table.add_row(str(row['gpus']), str(row['batch_size']), *rates)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    rows = tabulate_rates(cfg, args.gpus, args.samples_per_gpu)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)


if __name__ == '__main__':
    sys.exit(run(main))
