"""Find boxes in images, folders, videos, cameras and streams."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import missing_extra
from ..errors import UserError
from .flags import add_detector_flags, add_ray_flags, ray_address
from .output import console, print_json

if TYPE_CHECKING:
    from ..predict.options import PredictOptions
    from ..predict.running import Summary

EXAMPLES = (
    'mmdet-backbones predict work_dirs/mine photos --paint painted',
    'mmdet-backbones predict mine.py photos --checkpoint best.pth -o found.jsonl',
    'mmdet-backbones predict exported "photos/*.jpg" --format yolo -o photos',
    'mmdet-backbones predict work_dirs/mine aerial.tif --tile 800 -o trees.csv '
    '--format csv',
    'mmdet-backbones predict work_dirs/mine archive -o found.jsonl --ray',
)
_FORMATS = ('json', 'csv', 'coco', 'parquet', 'yolo', 'voc', 'labelme')


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_detector_flags(parser)
    parser.add_argument('sources', nargs='+', metavar='source',
                        help='images, folders, patterns, videos, the number of a '
                        'camera, or the address of a stream')  # fmt: skip
    out = parser.add_argument_group('output')
    out.add_argument('-o', '--out', type=Path, metavar='OUT',
                     help='file, or folder for labels; default: the terminal'
                     )  # fmt: skip
    out.add_argument('--format', choices=_FORMATS, default='json',
                     help='json is one line for each image; yolo, voc and labelme are '
                     'labels, a file for each; parquet needs --ray (%(default)s)'
                     )  # fmt: skip
    out.add_argument('--annotations', type=Path, metavar='FILE',
                     help='with --format coco: results with the ids of this data '
                     'set, for an AP')  # fmt: skip
    out.add_argument('--paint', type=Path, metavar='FOLDER',
                     help='for pictures and videos with the boxes')  # fmt: skip
    out.add_argument('--force', action='store_true', help='replace what is there')
    what = parser.add_argument_group('what is found')
    what.add_argument('--threshold', type=float, metavar='S',
                      help='lowest score (0.3; all with --annotations)')  # fmt: skip
    what.add_argument('--classes', metavar='A,B', help='these alone')
    what.add_argument('--batch', type=int, default=1, metavar='N',
                      help='images at a time (%(default)s)')  # fmt: skip
    what.add_argument('--fast', action='store_true',
                      help='fold batch normalisation, and on a GPU run in float16 and '
                      'replay CUDA graphs: scores move a little')  # fmt: skip
    what.add_argument('--tile', type=int, metavar='SIDE',
                      help='cut larger images into tiles of about this many '
                      'pixels')  # fmt: skip
    what.add_argument('--overlap', type=float, default=0.2, metavar='PART',
                      help='of a tile that it shares with the next (%(default)s)'
                      )  # fmt: skip
    add_ray_flags(parser, 'find the boxes')
    parser.add_argument('--workers', type=int, metavar='N',
                        help='of the cluster, which find boxes at a time; default: one '
                        'on each GPU, or on each core if there is none')  # fmt: skip


def run(args: Namespace) -> int:
    """Predict; exit status 1 where an image could not be read."""
    # OpenCV and FFmpeg tell on stderr what is told here in one message.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    from ..errors import shown
    from ..predict.running import predict

    options = _options_of(args)
    lines: list[str] = []
    write: Callable[[str], Any] | None = None
    if options.out is None and options.paint is None:
        if args.json and options.format != 'json':
            raise UserError(
                f'--json prints the summary: name a file for {options.format}, -o OUT'
            )
        write = lines.append if args.json else _print

    def tell(text: str) -> None:
        sys.stderr.write(f'{shown(text)}\n')

    # Lines and a bar would be on one terminal.
    quiet = write is _print and sys.stdout.isatty()
    track = (lambda items, *_: items) if quiet else _track
    summary = (
        _on_cluster(args, options, track, tell)
        if options.on_ray
        else predict(options, track, write, tell)
    )
    if args.json:
        found = dict(found=[json.loads(line) for line in lines]) if write else {}
        print_json(summary.to_dict() | found)
    else:
        _tell_summary(summary, sys.stderr if write is _print else sys.stdout)
    return 130 if summary.stopped else int(bool(summary.problems))


def _on_cluster(
    args: Namespace, options: PredictOptions, track: Any, tell: Any
) -> Summary:
    from ..predict.on_ray import ManyImages
    from ..search.cluster import connect

    problem = missing_extra('predict --ray', 'search', 'ray', 'pyarrow')
    if problem is not None:
        raise UserError(problem)
    many = ManyImages(options, tell)
    if not many.left:
        return many.run()
    with connect(ray_address(args)):
        return many.run(options.workers, track)


def _options_of(args: Namespace) -> PredictOptions:
    from ..predict.options import PredictOptions

    names = None if args.classes is None else args.classes.split(',')
    classes = None if names is None else tuple(name.strip() for name in names)
    return PredictOptions(
        model=args.model,
        sources=tuple(args.sources),
        checkpoint=args.checkpoint,
        device=args.device,
        out=args.out,
        format=args.format,
        paint=args.paint,
        threshold=args.threshold,
        classes=classes,
        batch=args.batch,
        tile=args.tile,
        overlap=args.overlap,
        annotations=args.annotations,
        force=args.force,
        trust=args.trust,
        fast=args.fast,
        on_ray=args.ray is not None,
        workers=args.workers,
    )


def _print(lines: str) -> None:
    # A name may have letters that the terminal has not.
    data = lines.encode(sys.stdout.encoding or 'utf-8', 'replace')
    sys.stdout.write(data.decode(sys.stdout.encoding or 'utf-8'))
    sys.stdout.flush()


def _track(items: Iterable[Any], total: int | None, name: str) -> Iterator[Any]:
    """Show a bar with the number of images a second, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Images a second."""

        def render(self, task: Task) -> Text:
            speed = task.completed / task.elapsed if task.elapsed else 0
            return Text(f'{speed:.1f} images/s' if task.completed else '')

    columns = (
        TextColumn('{task.description}', markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    bars = Progress(
        *columns, console=Console(stderr=True), expand=True, redirect_stdout=False
    )
    with bars:
        yield from bars.track(items, total=total, description=name)


def _tell_summary(summary: Summary, stream: Any) -> None:
    from rich.table import Table

    from ..errors import printable

    boxes, images = sum(summary.boxes.values()), summary.images
    stream.write(
        f'{boxes} box{"es" * (boxes != 1)} in {images} image{"s" * (images != 1)}, '
        f'{summary.rate:.1f} images/s\n'
    )
    if len(summary.boxes) > 1:
        table = Table()
        table.add_column('class')
        table.add_column('boxes', justify='right')
        for name, number in summary.boxes.most_common():
            table.add_row(printable(name), str(number))
        shown = console()
        shown.file = stream
        shown.print(table)
    if summary.problems:
        stream.write(f'{len(summary.problems)} could not be read, as told above\n')
    if summary.stopped:
        stream.write('stopped before the end: what was found until then is kept\n')
    for path in summary.written:
        stream.write(f'{path}\n')
