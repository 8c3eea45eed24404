"""Make a data set of your own images: COCO, Pascal VOC, YOLO or labelme."""

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track

# OpenCV tells of every tag in a TIFF that it does not know.
os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.errors import run
from mmdet_backbones.own_data.prepare import FORMATS, DataOptions, prepare
from mmdet_backbones.own_data.report import next_steps


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='images and annotations')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT')
    parser.add_argument('--val-share', type=float, default=0.2, metavar='S',
                        help='part to measure on, if there is no split')  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    parser.add_argument('--classes', metavar='A,B', help='that count, in this order')
    parser.add_argument('--merge-into', metavar='NAME', help='one class of all')
    parser.add_argument('--format', choices=FORMATS, help='if there are several')
    parser.add_argument('--tile', type=int, metavar='SIDE',
                        help='cut larger images into tiles of about this many '
                        'pixels')  # fmt: skip
    parser.add_argument('--force', action='store_true',
                        help='replace what this command wrote to OUT')  # fmt: skip
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    return parser.parse_args()


def main() -> None:
    # A class may have letters that the terminal has not.
    sys.stdout.reconfigure(errors='replace')  # type: ignore[union-attr]
    args = parse_args()
    names = None if args.classes is None else args.classes.split(',')
    classes = None if names is None else tuple(name.strip() for name in names)
    options = DataOptions(args.folder, args.out, args.val_share, args.seed, classes,
                  args.merge_into, args.format, args.force, args.tile)  # fmt: skip
    report = prepare(options, lambda images, total: track(
        images, 'Looking at images', total, console=Console(stderr=True)))  # fmt: skip
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
        return
    Console().print(report.table())
    print(next_steps(report))


if __name__ == '__main__':
    sys.exit(run(main))
