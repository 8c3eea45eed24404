"""Write a short config that puts another backbone into a detector."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.check.weights import where_to_put_weights
from mmdet_backbones.commands import command
from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.errors import UserError, run
from mmdet_backbones.swap.swapping import SwapOptions, notes_in, save, swap_backbone


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('base', help='config of a detector: a path, or mmdet::x/y.py')
    parser.add_argument('name', help='backbone, as tools/list_backbones.py names it')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT.py')
    parser.add_argument('--strides', nargs='+', type=int, metavar='S',
                        help='of the levels; default: as in the base')  # fmt: skip
    parser.add_argument('--checkpoint', help='weights: a path or an address')
    parser.add_argument('--data', metavar='DIR',
                        help='data set: annotations/train.json, val.json, train/ and '
                        'val/, or the folders of Pascal VOC')  # fmt: skip
    parser.add_argument('--num-classes', type=int, metavar='N')
    parser.add_argument('--epochs', type=int, metavar='N',
                        help='with all that follows; default: as in the base, and more '
                        'for few images')  # fmt: skip
    parser.add_argument('--batch', type=int, metavar='N', help='images per GPU')
    parser.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'),
                        help='of the images, in all pipelines')  # fmt: skip
    parser.add_argument('--lr', type=float, metavar='RATE',
                        help='for the batch of one GPU')  # fmt: skip
    parser.add_argument('--no-weights', action='store_true',
                        help='start from random values')  # fmt: skip
    parser.add_argument('--keep-width', action='store_true',
                        help='let a neck get as wide as the backbone')  # fmt: skip
    parser.add_argument('--dry-run', action='store_true', help='print, write nothing')
    parser.add_argument('--force', action='store_true', help='replace OUT.py')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    options = SwapOptions(
        base=args.base,
        name=args.name,
        out=args.out,
        strides=tuple(args.strides) if args.strides else None,
        checkpoint=args.checkpoint,
        data=args.data,
        num_classes=args.num_classes,
        force=args.force,
        epochs=args.epochs,
        batch=args.batch,
        size=tuple(args.size) if args.size else None,
        lr=args.lr,
        no_weights=args.no_weights,
        keep_width=args.keep_width,
    )
    if args.dry_run:
        print(swap_backbone(options), end='')
        return
    path = save(options)
    config = read_by_name(str(path))
    findings = check_config(config)
    print(f'written: {path}\n{notes_in(path.read_text())}\n{describe(findings)}')
    if errors_of(findings):
        raise UserError(f"'{path}' is written, and what is told above is wrong with it")
    if absent := where_to_put_weights(config):
        print(absent)
    print(f'{command("train")} {path}')


if __name__ == '__main__':
    sys.exit(run(main))
