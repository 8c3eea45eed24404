"""Draw every level of backbone and neck over an image.

Where its energy is, and how far one position of it sees.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import add_config_flags
from .output import console, print_json

if TYPE_CHECKING:
    from ..pictures.visualizing import DrawingOptions, Visualization

EXAMPLES = (
    'mmdet-backbones levels mine.py street.jpg',
    'mmdet-backbones levels mine.py work_dirs/mine/epoch_12.pth street.jpg -o seen.png',
)
_LONGEST = 640


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.usage = '%(prog)s CONFIG [CHECKPOINT] IMAGE [-o OUT.png] [options]'
    add_config_flags(parser)
    parser.add_argument('checkpoint', nargs='?',
                        help='of the detector; without it the weights that training '
                        'would start from, as far as they are here')  # fmt: skip
    parser.add_argument('image', help='a photograph')
    parser.add_argument('-o', '--out', help='default: CONFIG_IMAGE_levels.png')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--size', type=int, default=_LONGEST, metavar='PIXELS',
                        help='longest side of the image (%(default)s); less if the '
                        'test pipeline says so')  # fmt: skip
    parser.add_argument('--force', action='store_true', help='replace OUT.png')


def run(args: Namespace) -> None:
    """Draw the picture, and print the table or JSON."""
    from ..detector_config.read import read_config
    from ..errors import UserError
    from ..pictures.visualizing import problems_with, visualize

    options = _options_of(args)
    problems = problems_with(options)
    try:
        cfg = read_config(args)
    except UserError as error:
        problems.insert(0, str(error))
    if problems:
        raise UserError('\n'.join(problems))
    found = visualize(cfg, options)
    if args.json:
        levels = [
            dict(place=view.place, level=view.number, channels=view.channels,
                 size=view.size, stride=view.stride, reach=view.reach)
            for view in found.views
        ]  # fmt: skip
        print_json(
            dict(out=str(found.out), size=found.size, weights=found.weights,
                 levels=levels, faults=found.faults)
        )  # fmt: skip
    else:
        _print(found)


def _options_of(args: Namespace) -> DrawingOptions:
    from ..pictures.visualizing import DrawingOptions

    image = Path(args.image)
    out = args.out or f'{Path(args.config).stem}_{image.stem}_levels.png'
    return DrawingOptions(
        image, Path(out), args.checkpoint, args.device, args.size, args.force
    )  # fmt: skip


def _print(found: Visualization) -> None:
    from rich.table import Table

    print(f'{found.size[0]} x {found.size[1]} pixels, {found.weights}')
    table = Table()
    for column in ('level', 'channels', 'map', 'stride', '90 % of field'):
        table.add_column(column, justify='right', no_wrap=True)
    for view in found.views:
        height, width = view.size
        table.add_row(
            f'{view.place} {view.number}',
            str(view.channels),
            f'{height} x {width}',
            str(view.stride),
            f'{view.reach} px',
        )
    console().print(table)
    for fault in found.faults:
        print(fault)
    print(f'{found.out} shows {len(found.views)} levels')
