"""Export a trained detector to ONNX, OpenVINO or torch, proven equal."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from .output import print_json

EXAMPLES = (
    'mmdet-backbones export work_dirs/mine -o exported',
    'mmdet-backbones export mine.py --checkpoint best.pth -o exported '
    '--format openvino --size 640 640',
    'mmdet-backbones export work_dirs/mine -o small --format openvino --precision int8',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('model', help='config, or work folder')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='FOLDER')
    parser.add_argument('--format', default='onnx',
                        choices=('onnx', 'openvino', 'torch', 'tensorrt'),
                        help='engine that runs it (%(default)s)')  # fmt: skip
    parser.add_argument('--precision', default='fp32',
                        choices=('fp32', 'fp16', 'bf16', 'int8'),
                        help='of the net; lower ones are judged by their mAP '
                        '(%(default)s)')  # fmt: skip
    parser.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'),
                        help='of the images; default: of the test pipeline'
                        )  # fmt: skip
    parser.add_argument('--dynamic', action='store_true',
                        help='any number of images of any size')  # fmt: skip
    parser.add_argument('--data', metavar='FOLDER',
                        help='images or data set to prove it with; default: what the '
                        'config tests on')  # fmt: skip
    parser.add_argument('--checkpoint', metavar='FILE',
                        help='of the detector; default: the best of the work folder, '
                        'or the newest')  # fmt: skip
    parser.add_argument('--max-drop', type=float, default=0.005, metavar='D',
                        help='mAP that a lower precision may cost (%(default)s)'
                        )  # fmt: skip
    parser.add_argument('--force', action='store_true',
                        help='replace FOLDER; keep what is not equal')  # fmt: skip


def run(args: Namespace) -> int:
    """Export; exit status 1 where what was written is not equal, and kept by force."""
    from ..deploy.exporting import export_with_figures, next_command
    from ..deploy.options import ExportOptions
    from ..errors import shown

    options = ExportOptions(
        model=args.model,
        out=args.out,
        format=args.format,
        precision=args.precision,
        size=tuple(args.size) if args.size else None,
        dynamic=args.dynamic,
        data=args.data,
        checkpoint=args.checkpoint,
        max_drop=args.max_drop,
        force=args.force,
    )

    def tell(text: str) -> None:
        sys.stderr.write(f'{shown(text)} ...\n')

    exported = export_with_figures(options, tell)
    if args.json:
        print_json(
            dict(
                written=str(exported.folder),
                passed=exported.passed,
                compared_on=exported.images,
                notes=exported.notes,
                **asdict(exported.comparison),
            )
        )
        return int(not exported.passed)
    for note in exported.notes:
        print(shown(note))
    verdict = 'equal' if args.precision == 'fp32' else 'mAP holds; compared'
    if not exported.passed:
        verdict = 'NOT EQUAL, kept by --force'
    print(f'{verdict} on {exported.images}: {exported.comparison}')
    print(shown(f'written: {exported.folder}\n{next_command(exported.folder)}'))
    return int(not exported.passed)
