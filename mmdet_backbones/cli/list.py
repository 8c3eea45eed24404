"""List every backbone of every source that can be used here."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .output import print_json

if TYPE_CHECKING:
    from ..catalog.listing import Listing

EXAMPLES = (
    'mmdet-backbones list "*convnext*" --stride 8 16 32 --max-params 30M',
    'mmdet-backbones list --licence commercial --sort top1 --max-params 30M',
    'mmdet-backbones list resnet50 --source timm torchvision',
)
_SOURCES = ('ours', 'timm', 'torchvision', 'mmpretrain', 'transformers', 'mmdet')
_SORTS = ('macs', 'name', 'params', 'top1')


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('pattern', nargs='?', default='', help='a glob or a part')
    group = parser.add_argument_group('filters')
    group.add_argument('--source', nargs='+', choices=_SOURCES)
    group.add_argument('--stride', nargs='+', type=int, default=[], metavar='S',
                       help='with levels at all of these strides')  # fmt: skip
    group.add_argument('--max-params', metavar='30M', help='without any head')
    group.add_argument('--licence', metavar='NAME',
                       help='of the usual weights: a name, a glob, or "commercial" '
                       'for Apache 2.0, BSD, MIT and CC BY')  # fmt: skip
    parser.add_argument('--sort', choices=_SORTS,
                        help='top1: the best first, others: the smallest')  # fmt: skip


def run(args: Namespace) -> None:
    """Print the table, or JSON."""
    from ..catalog.listing import list_backbones, parse_count

    limit = parse_count(args.max_params) if args.max_params else None
    listing = list_backbones(
        args.pattern, args.source, args.stride, limit, args.licence, args.sort
    )
    if args.json:
        print_json(listing.to_dict())
    else:
        _print(listing)
    for note in listing.notes:
        print(f'note: {note}', file=sys.stderr)


def _print(listing: Listing) -> None:
    from ..catalog.listing import listing_table
    from .output import console

    out = console(400)
    out.print(listing_table(listing, out.width))
    for name, reason in list(listing.refused.items())[:3]:
        print(f'cannot be used: {name}: {reason}', file=sys.stderr)
    if len(listing.refused) > 3:
        print(f'cannot be used: {len(listing.refused)} in all; --json has the reasons',
              file=sys.stderr)  # fmt: skip
    print(f'{len(listing.rows)} backbones', file=sys.stderr)
