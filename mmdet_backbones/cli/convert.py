"""Convert a checkpoint into one that a net loads as it is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .output import console, print_json

if TYPE_CHECKING:
    from ..catalog.conversion import Conversion

EXAMPLES = (
    'mmdet-backbones convert weights.pth --list-keys',
    'mmdet-backbones convert timm://resnet50 --to res2net50_26w_4s -o mine.pth',
    'mmdet-backbones convert rtdetr.safetensors --to my_rtdetr.py -o whole.pth',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('source', help='path, address, timm://NAME, torchvision://NAME')
    parser.add_argument(
        '--to',
        metavar='NAME[@DIALECT]',
        help='a name of the subcommand list; with @DIALECT, for example '
        'timm/resnet50@timm, under the names of that source instead of ours; for all '
        'of an RT-DETR of transformers the config of ours, CONFIG.py',
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
    if args.to.endswith('.py'):
        done = _convert_detector(args)
    else:
        done = _convert_backbone(args)
    if args.json:
        print_json(done.to_dict())
    else:
        print(f'{done.report}\nwritten to {done.target}')


def _convert_backbone(args: Namespace) -> Conversion:
    from ..catalog import conversion

    return conversion.convert(
        args.source, args.to, args.output,
        licence=args.licence, min_coverage=args.min_coverage, force=args.force,
        allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected,
    )  # fmt: skip


def _convert_detector(args: Namespace) -> Conversion:
    from ..detector_config.read import read_by_name
    from ..detectors.published import convert_detector
    from ..errors import UserError

    given = dict(
        min_coverage=args.min_coverage,
        allow_missing=args.allow_missing,
        allow_unexpected=args.allow_unexpected,
    )
    useless = [f'--{k.replace("_", "-")}' for k, v in given.items() if v]
    if useless:
        raise UserError(
            f'all of a detector is in the file or it is refused: leave out '
            f'{", ".join(useless)}'
        )
    model = read_by_name(args.to).model
    return convert_detector(args.source, model, args.output, args.licence, args.force)
