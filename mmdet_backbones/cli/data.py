"""Make a data set of images with COCO, VOC, YOLO or labelme boxes."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .output import print_json

EXAMPLES = (
    'mmdet-backbones data photographs -o trees',
    'mmdet-backbones data VOCdevkit/VOC2012 -o cars --classes car,bus --tile 800',
)
_FORMATS = ('coco', 'voc', 'yolo', 'labelme')


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('folder', type=Path, help='images and annotations')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT')
    parser.add_argument('--force', action='store_true',
                        help='replace what this command wrote to OUT')  # fmt: skip
    group = parser.add_argument_group('what is taken')
    group.add_argument('--val-share', type=float, default=0.2, metavar='S',
                       help='part to measure on, if there is no split')  # fmt: skip
    group.add_argument('--seed', type=int, default=0, help='of the split')
    group.add_argument('--classes', metavar='A,B', help='that count, in this order')
    group.add_argument('--merge-into', metavar='NAME', help='one class of all')
    group.add_argument('--format', choices=_FORMATS, help='if there are several')
    group.add_argument('--tile', type=int, metavar='SIDE',
                       help='cut larger images into tiles of about this many '
                       'pixels')  # fmt: skip


def run(args: Namespace) -> None:
    """Prepare the data, and say what was found and comes next."""
    # OpenCV tells of every tag in a TIFF that it does not know.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')
    from rich.console import Console
    from rich.progress import track

    from ..own_data.prepare import DataOptions, prepare
    from ..own_data.report import next_steps

    # A class may have letters that the terminal has not.
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='replace')
    names = None if args.classes is None else args.classes.split(',')
    classes = None if names is None else tuple(name.strip() for name in names)
    options = DataOptions(args.folder, args.out, args.val_share, args.seed, classes,
                  args.merge_into, args.format, args.force, args.tile)  # fmt: skip
    report = prepare(options, lambda images, total: track(
        images, 'Looking at images', total, console=Console(stderr=True)))  # fmt: skip
    if args.json:
        print_json(report.to_dict())
        return
    Console().print(report.table())
    print(next_steps(report))
