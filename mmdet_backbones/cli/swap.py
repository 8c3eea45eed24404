"""Write a short config that puts another backbone into a detector."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..commands import command
from .output import print_json

EXAMPLES = (
    'mmdet-backbones swap mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py '
    'timm/convnext_tiny -o mine.py',
    'mmdet-backbones swap my_config.py timm/vit_small_patch16_dinov3 --neck adapter '
    '--backbone-option window_size=14 -o mine.py',
    'mmdet-backbones swap my_config.py torchvision/resnet50 --data trees -o mine.py',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('base', help='config of a detector: a path, or mmdet::x/y.py')
    parser.add_argument('name', help='backbone, as the subcommand list names it')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT.py')
    parser.add_argument('--dry-run', action='store_true', help='print, write nothing')
    parser.add_argument('--force', action='store_true', help='replace OUT.py')
    net = parser.add_argument_group('backbone')
    net.add_argument('--strides', nargs='+', type=int, metavar='S',
                     help='of the levels; default: as in the base')  # fmt: skip
    net.add_argument('--checkpoint', help='weights: a path or an address')
    net.add_argument('--no-weights', action='store_true',
                     help='start from random values')  # fmt: skip
    net.add_argument('--frozen-stages', type=_stages, metavar='N',
                     help='stages that do not train: -1 none, 0 the stem, n the stem '
                     'and n stages, all the whole backbone; default: as far as in the '
                     'base')  # fmt: skip
    net.add_argument('--keep-width', action='store_true',
                     help='let a neck get as wide as the backbone')  # fmt: skip
    net.add_argument('--neck', choices=('sfp', 'adapter'),
                     help='pyramid for a plain ViT: of its map (default), or with a '
                     'branch that looks at the image')  # fmt: skip
    net.add_argument('--backbone-option', nargs='+', metavar='NAME=VALUE',
                     action='extend', default=[],
                     help='arguments of its class, such as window_size=14 '
                     'global_blocks=4')  # fmt: skip
    data = parser.add_argument_group('data')
    data.add_argument('--data', metavar='DIR',
                      help='data set: annotations/train.json, val.json, train/ and '
                      'val/, or the folders of Pascal VOC')  # fmt: skip
    data.add_argument('--num-classes', type=int, metavar='N')
    training = parser.add_argument_group('training')
    training.add_argument('--epochs', type=int, metavar='N',
                          help='with all that follows from them; default: as in the '
                          'base, and more for few images')  # fmt: skip
    training.add_argument('--batch', type=int, metavar='N', help='images per GPU')
    training.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'),
                          help='of the images, in all pipelines')  # fmt: skip
    training.add_argument('--lr', type=float, metavar='RATE',
                          help='for the batch of one GPU')  # fmt: skip
    training.add_argument('--recipe', choices=('fitting', 'base'), default='fitting',
                          help='fitting to backbone, data and length, or that of the '
                          'base')  # fmt: skip


def _stages(text: str) -> int | str:
    # Out of range is told by the backbone, which knows its stages.
    return text if text == 'all' else int(text)


def run(args: Namespace) -> int:
    """Write the config and check it; exit status 1 where the check finds an error."""
    from ..swap.swapping import SwapOptions, swap_backbone

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
        frozen_stages=args.frozen_stages,
        keep_width=args.keep_width,
        neck=args.neck,
        backbone_options=tuple(args.backbone_option),
        recipe=args.recipe,
    )
    if not args.dry_run:
        return _write(options, args.json)
    text = swap_backbone(options)
    if args.json:
        print_json(dict(text=text))
    else:
        print(text, end='')
    return 0


def _write(options, as_json: bool) -> int:  # type: ignore[no-untyped-def]
    from ..check.config import check_config
    from ..check.findings import describe, errors_of
    from ..check.weights import where_to_put_weights
    from ..detector_config.read import read_by_name
    from ..errors import UserError
    from ..swap.swapping import notes_in, save

    path = save(options)
    notes = notes_in(path.read_text(encoding='utf-8'))
    config = read_by_name(str(path))
    findings = check_config(config)
    failed = bool(errors_of(findings))
    absent = where_to_put_weights(config)
    following = f'{command("train")} {path}'
    if as_json:
        print_json(
            dict(
                written=str(path),
                notes=notes,
                findings=[finding.to_dict() for finding in findings],
                absent_weights=absent or None,
                next=None if failed else following,
            )
        )
        return int(failed)
    print(f'written: {path}\n{notes}\n{describe(findings)}')
    if failed:
        raise UserError(f"'{path}' is written, and what is told above is wrong with it")
    if absent:
        print(absent)
    print(following)
    return 0
