"""Convert a checkpoint of any source into one that a net loads as it is."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.catalog import conversion
from mmdet_backbones.errors import UserError, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='path, address, timm://NAME, torchvision://NAME')
    parser.add_argument(
        '--to',
        metavar='NAME[@DIALECT]',
        help='a name of tools/list_backbones.py; with @DIALECT, for example '
        'timm/resnet50@timm, under the names of that source instead of ours',
    )
    parser.add_argument('-o', '--output', help='.pth or .safetensors file to write')
    parser.add_argument('--licence', help='licence of the weights, stored with them')
    parser.add_argument('--min-coverage', type=float, help='0 to 1')
    for option in ('--allow-missing', '--allow-unexpected'):
        parser.add_argument(
            option, nargs='+', default=(), metavar='ROLE', help='as in init_cfg'
        )
    parser.add_argument('--force', action='store_true', help='replace the output')
    parser.add_argument(
        '--list-keys', action='store_true', help='only show what is in the source'
    )
    parser.add_argument('--json', action='store_true', help='print JSON, no tables')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.list_keys:
        if args.json:
            print(json.dumps(conversion.read_shapes(args.source), indent=1))
            return
        from rich.console import Console

        console = Console(highlight=False, markup=False, emoji=False)
        console.print(conversion.key_table(args.source))
        return
    if not args.to or not args.output:
        raise UserError('write --to NAME and -o FILE, or --list-keys')
    done = conversion.convert(
        args.source, args.to, args.output,
        licence=args.licence, min_coverage=args.min_coverage, force=args.force,
        allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected,
    )  # fmt: skip
    if args.json:
        print(json.dumps(done.to_dict(), indent=1))
    else:
        print(f'{done.report}\nwritten to {done.target}')


if __name__ == '__main__':
    arguments = parse_args()
    sys.exit(run(lambda: main(arguments)))
