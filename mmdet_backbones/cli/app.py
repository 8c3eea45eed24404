"""Show in a browser what a detector finds in a photograph.

Drop a photograph, see its boxes, move the threshold, and look at the levels. The page
is on this machine alone.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .flags import add_detector_flags
from .output import print_json

if TYPE_CHECKING:
    from ..app.serving import Served

EXAMPLES = (
    'mmdet-backbones app work_dirs/mine',
    'mmdet-backbones app exported --port 8000',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_detector_flags(parser)
    parser.add_argument('--port', type=int, metavar='N',
                        help='default: the first free one from 7860 on')  # fmt: skip
    parser.add_argument('--threshold', type=float, default=0.3, metavar='S',
                        help='lowest score at first (%(default)s)')  # fmt: skip


def run(args: Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from ..app.serving import AppOptions, problems_with, serve
    from ..errors import UserError

    options = AppOptions(
        args.model,
        args.checkpoint,
        args.device,
        args.port,
        args.threshold,
        args.trust,
    )
    problems = problems_with(options)
    if problems:
        raise UserError('\n'.join(problems))

    def tell(served: Served) -> None:
        if args.json:
            print_json(dict(address=served.address))
            return
        for note in served.notes:
            print(note)
        print(f'{served.address} shows {args.model}; Ctrl-C ends it', flush=True)

    serve(options, tell)
