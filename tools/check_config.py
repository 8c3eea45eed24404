"""Check a config before training: exit status 1 and every mistake, or nothing."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine import launch
from mmdet_backbones.errors import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_config_flags(parser)
    parser.add_argument('--fast', action='store_true',
                        help='build on the meta device only: no training step, no '
                        'question to servers')  # fmt: skip
    parser.add_argument('--gpus', type=int, default=1,
                        help='processes that will train together')  # fmt: skip
    parser.add_argument('--json', action='store_true')
    return parser.parse_args()


def check(args: argparse.Namespace) -> int:
    from mmdet_backbones.check.config import check_config
    from mmdet_backbones.check.findings import describe, errors_of

    cfg = read_config(args)
    findings = check_config(cfg, fast=args.fast, num_gpus=args.gpus)
    if args.json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=1))
    else:
        print(describe(findings))
    return 1 if errors_of(findings) else 0


if __name__ == '__main__':
    arguments = parse_args()
    status = []
    sys.exit(run(lambda: status.append(check(arguments))) or status[0])
