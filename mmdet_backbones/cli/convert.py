"""Convert a checkpoint into one that a net loads as it is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .output import console, print_json

EXAMPLES = (
    'mmdet-backbones convert weights.pth --list-keys',
    'mmdet-backbones convert timm://resnet50 --to res2net50_26w_4s -o mine.pth',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('source', help='path, address, timm://NAME, torchvision://NAME')
    parser.add_argument(
        '--to',
        metavar='NAME[@DIALECT]',
        help='a name of the subcommand list; with @DIALECT, for example '
        'timm/resnet50@timm, under the names of that source instead of ours',
    )
    parser.add_argument('-o', '--output', help='.pth or .safetensors file to write')
    parser.add_argument('--licence', help='licence of the weights, stored with them')
    parser.add_argument('--force', action='store_true', help='replace the output')
    parser.add_argument(
        '--list-keys', action='store_true', help='only show what is in the source'
    )
    group = parser.add_argument_group('what may be missing')
    group.add_argument('--min-coverage', type=float, help='0 to 1')
    for option in ('--allow-missing', '--allow-unexpected'):
        group.add_argument(
            option, nargs='+', default=(), metavar='ROLE', help='as in init_cfg'
        )


def run(args: Namespace) -> None:
    """Write the file, or list what is in the source."""
    from ..catalog import conversion
    from ..errors import UserError

    if args.list_keys:
        if args.json:
            print_json(conversion.read_shapes(args.source))
        else:
            console().print(conversion.key_table(args.source))
        return
    if not args.to or not args.output:
        raise UserError('write --to NAME and -o FILE, or --list-keys')
    done = conversion.convert(
        args.source, args.to, args.output,
        licence=args.licence, min_coverage=args.min_coverage, force=args.force,
        allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected,
    )  # fmt: skip
    if args.json:
        print_json(done.to_dict())
    else:
        print(f'{done.report}\nwritten to {done.target}')
