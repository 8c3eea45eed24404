"""Compare trainings: AP, time, parameters and GFLOPs."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .output import console, print_json

EXAMPLES = ('mmdet-backbones compare work_dirs/a work_dirs/b -o compared',)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR',
                        help='of a training, or the folder of a search')  # fmt: skip
    parser.add_argument('-o', '--out', type=Path, metavar='OUT_DIR',
                        help='folder for table (Markdown and JSON) and plots; without '
                        'it the table is only printed')  # fmt: skip
    parser.add_argument('--metric', help='such as coco/bbox_mAP_50; default: AP')
    parser.add_argument('--force', action='store_true', help='replace files in OUT_DIR')


def run(args: Namespace) -> int:
    """Print the table, or JSON; exit status 1 where a folder is no run."""
    from ..errors import UserError, shown
    from ..runs.comparing import compare, problems_with, write
    from ..runs.folders import work_folders

    folders = work_folders(args.work_dirs)
    problems = problems_with(folders, args.out, args.force)
    if problems:
        raise UserError('\n'.join(problems))
    comparison = compare(folders, args.metric)
    if args.json:
        print_json(comparison.to_dict())
    elif sys.stdout.isatty():
        for part in comparison.to_tables():
            console().print(part)
    else:
        # Names of metrics come from logs, which anybody may have written.
        print(shown(comparison.to_markdown()), end='')
    if args.out is not None:
        for path in write(comparison, args.out):
            print(path, file=sys.stderr)
    return 1 if any(run.problem for run in comparison.runs) else 0
