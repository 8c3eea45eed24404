"""Draw every level of backbone and neck over an image: energy and receptive field."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine import launch
from mmdet_backbones.errors import UserError, run
from mmdet_backbones.pictures.visualizing import (
    LONGEST,
    DrawingOptions,
    Visualization,
    problems_with,
    visualize,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage='%(prog)s CONFIG [CHECKPOINT] IMAGE [-o OUT.png] [options]',
    )
    launch.add_config_flags(parser)
    parser.add_argument('checkpoint', nargs='?',
                        help='of the detector; without it the weights that training '
                        'would start from, as far as they are here')  # fmt: skip
    parser.add_argument('image', help='a photograph')
    parser.add_argument('-o', '--out', help='default: CONFIG_IMAGE_levels.png')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--size', type=int, default=LONGEST, metavar='PIXELS',
                        help='longest side of the image (%(default)s); less if the '
                        'test pipeline says so')  # fmt: skip
    parser.add_argument('--force', action='store_true', help='replace OUT.png')
    # Flags may stand between the paths.
    return parser.parse_intermixed_args()


def options_of(args: argparse.Namespace) -> DrawingOptions:
    image = Path(args.image)
    out = args.out or f'{Path(args.config).stem}_{image.stem}_levels.png'
    return DrawingOptions(
        image, Path(out), args.checkpoint, args.device, args.size, args.force
    )  # fmt: skip


def print_found(found: Visualization) -> None:
    from rich.console import Console
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
    console = Console(
        width=None if sys.stdout.isatty() else 200, markup=False, highlight=False
    )
    console.print(table)
    for fault in found.faults:
        print(fault)
    print(f'{found.out} shows {len(found.views)} levels')


def main() -> None:
    args = parse_args()
    options = options_of(args)
    problems = problems_with(options)
    try:
        cfg = read_config(args)
    except UserError as error:
        problems.insert(0, str(error))
    if problems:
        raise UserError('\n'.join(problems))
    print_found(visualize(cfg, options))


if __name__ == '__main__':
    sys.exit(run(main))
