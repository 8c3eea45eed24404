"""Find every mistake of a config before training.

The exit status is 1 where one of them is an error.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .flags import add_config_flags
from .output import print_json

EXAMPLES = (
    'mmdet-backbones check mine.py',
    'mmdet-backbones check mine.py --fast --cfg-options model.bbox_head.num_classes=3',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_config_flags(parser)
    parser.add_argument('--fast', action='store_true',
                        help='build on the meta device only: no training step, no '
                        'question to servers')  # fmt: skip
    parser.add_argument('--gpus', type=int, default=1,
                        help='processes that will train together')  # fmt: skip


def run(args: Namespace) -> int:
    """Print what is wrong."""
    from ..check.config import check_config
    from ..check.findings import describe, errors_of
    from ..detector_config.read import read_config

    findings = check_config(read_config(args), fast=args.fast, num_gpus=args.gpus)
    if args.json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print(describe(findings))
    return 1 if errors_of(findings) else 0
