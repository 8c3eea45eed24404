"""Show levels, parameters and multiply-adds of one backbone.

Nothing is allocated, so the largest nets cost as little as the small ones.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .output import console, print_json

if TYPE_CHECKING:
    from ..catalog.inspection import Inspection

EXAMPLES = (
    'mmdet-backbones inspect timm/convnext_tiny',
    'mmdet-backbones inspect res2net50_26w_4s --size 800 1333',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('name', help='source/model, or the name of one of our own nets')
    parser.add_argument('--size', nargs=2, type=int, default=(640, 640),
                        metavar=('H', 'W'))  # fmt: skip
    parser.add_argument('--in-channels', type=int, default=3)


def run(args: Namespace) -> None:
    """Print the tables, or JSON."""
    from ..catalog.inspection import inspect_backbone

    found = inspect_backbone(args.name, tuple(args.size), args.in_channels)
    if args.json:
        print_json(found.to_dict())
    else:
        _print(found)


def _print(found: Inspection) -> None:
    from ..catalog.inspection import level_table, stage_table, weights_table
    from ..levels import describe_levels

    out = console()
    print(f'{found.name}: {dict(found.config)}\n')
    out.print(level_table(found))
    print()
    out.print(stage_table(found))
    height, width = found.size
    out.print(
        f'\n{found.macs / 1e9:.2f} GMACs at {height} x {width} (multiply-adds of one '
        'image, convolutions and matrix products; FLOPs are twice that)'
    )
    if found.weights:
        print()
        out.print(weights_table(found))
    if found.declared:
        out.print(f'It declares other levels: {describe_levels(found.declared)}')
