"""List every backbone of every source that can be used here."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.catalog.entries import SOURCES
from mmdet_backbones.catalog.listing import (
    SORTS,
    Listing,
    list_backbones,
    listing_table,
    parse_count,
)
from mmdet_backbones.errors import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pattern', nargs='?', default='', help='a glob or a part')
    parser.add_argument('--source', nargs='+', choices=list(SOURCES))
    parser.add_argument('--stride', nargs='+', type=int, default=[], metavar='S',
                        help='with levels at all of these strides')  # fmt: skip
    parser.add_argument('--max-params', metavar='30M', help='without any head')
    parser.add_argument('--licence', metavar='NAME',
                        help='of the usual weights: a name, a glob, or "commercial" '
                        'for Apache 2.0, BSD, MIT and CC BY')  # fmt: skip
    parser.add_argument('--sort', choices=list(SORTS),
                        help='top1: the best first, others: the smallest')  # fmt: skip
    parser.add_argument('--json', action='store_true', help='print JSON, no table')
    return parser.parse_args()


def print_listing(listing: Listing) -> None:
    from rich.console import Console

    # A pipe has no width: lines are as long as they need to be.
    console = Console(
        width=None if sys.stdout.isatty() else 400,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(listing_table(listing, console.width))
    for name, reason in list(listing.refused.items())[:3]:
        print(f'cannot be used: {name}: {reason}', file=sys.stderr)
    if len(listing.refused) > 3:
        print(f'cannot be used: {len(listing.refused)} in all; --json has the reasons',
              file=sys.stderr)  # fmt: skip
    print(f'{len(listing.rows)} backbones', file=sys.stderr)


def main() -> None:
    args = parse_args()
    limit = parse_count(args.max_params) if args.max_params else None
    listing = list_backbones(
        args.pattern, args.source, args.stride, limit, args.licence, args.sort
    )
    if args.json:
        print(json.dumps(listing.to_dict(), indent=1))
    else:
        print_listing(listing)
    for note in listing.notes:
        print(f'note: {note}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(run(main))
