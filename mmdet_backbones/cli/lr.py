"""Print the learning rates for different numbers of GPUs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from .flags import add_config_flags
from .output import console, print_json

EXAMPLES = ('mmdet-backbones lr mine.py --gpus 1 2 4 8 --samples-per-gpu 4',)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_config_flags(parser)
    parser.add_argument('--gpus', nargs='+', type=int, default=[1, 2, 4, 8])
    parser.add_argument('--samples-per-gpu', type=int, metavar='IMAGES',
                        help='instead of those of the config')  # fmt: skip


def run(args: Namespace) -> None:
    """Print the table, or JSON."""
    from ..detector_config.read import read_config
    from ..engine.lr_scaling import tabulate_rates

    rows = tabulate_rates(read_config(args), args.gpus, args.samples_per_gpu)
    if args.json:
        print_json(rows)
    else:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=f'{rows[0]["rule"]} rule, rates of {rows[0]["base"]} images')
    for column in ('GPUs', 'images per step', *rows[0]['rates']):
        table.add_column(column, justify='right', overflow='fold')
    for row in rows:
        rates = (f'{rate:.6g}' for rate in row['rates'].values())
        table.add_row(str(row['gpus']), str(row['batch_size']), *rates)
    console().print(table)
