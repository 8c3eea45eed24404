"""Measure speed, size and memory of backbones, also in a detector.

Weights are random and images synthetic: no data set and no download. Nets take turns,
so that they share whatever else the machine does; memory is measured one by one.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .output import console, print_json

EXAMPLES = (
    'mmdet-backbones benchmark res2net50_26w_4s timm/resnet50 --size 640 640',
    'mmdet-backbones benchmark timm/resnet18 timm/resnet50 --detector '
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --plot speed.png',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument(
        'names', nargs='+', metavar='NAME', help='source/model, or one of our own'
    )
    flag = parser.add_argument_group('what is run').add_argument
    flag('--detector', metavar='CONFIG', help='path, or mmdet::folder/name.py')
    flag('--size', nargs=2, type=int, default=(640, 640), metavar=('H', 'W'))
    flag('--batch', type=int, default=1, help='number of images')
    flag('--train', action='store_true', help='forward and backward')
    flag('--device', choices=['cpu', 'cuda'], default='cpu')
    flag('--rounds', type=int, default=10, help='how often each net is timed')
    flag('--channels-last', action='store_true')
    flag('--fuse', action='store_true', help='fold batch normalisation')
    flag = parser.add_argument_group('output').add_argument
    flag('--plot', type=Path, metavar='FILE', help='speed against size, .png or .svg')
    flag('--force', action='store_true', help='the plot may be replaced')


def run(args: Namespace) -> None:
    """Print the table, or JSON; draw the plot."""
    from ..speed import output
    from ..speed.nets import Settings
    from ..speed.timing import benchmark, count_steps

    output.check_plot(args.plot, args.force)
    names = ('batch', 'train', 'device', 'rounds', 'channels_last', 'fuse', 'detector')
    chosen = {name: getattr(args, name) for name in names}
    settings = Settings(size=tuple(args.size), **chosen)
    with output.progress(count_steps(args.names, settings)) as advance:
        results = benchmark(args.names, settings, advance)
    if args.json:
        print_json(output.report(results, settings))
    else:
        console().print(output.table(results, settings))
    if args.plot is not None:
        output.save_plot(results, settings, args.plot)
