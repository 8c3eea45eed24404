"""Compare trainings: table and plots of AP, time, parameters and GFLOPs."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.errors import UserError, run, shown
from mmdet_backbones.runs.comparing import compare, problems_with, write


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR')
    parser.add_argument('-o', '--out', type=Path, metavar='OUT_DIR',
                        help='folder for table (Markdown and JSON) and plots; without '
                        'it the table is only printed')  # fmt: skip
    parser.add_argument('--metric', help='such as coco/bbox_mAP_50; default: AP')
    parser.add_argument('--json', action='store_true', help='print JSON, no table')
    parser.add_argument('--force', action='store_true', help='replace files in OUT_DIR')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    problems = problems_with(args.work_dirs, args.out, args.force)
    if problems:
        raise UserError('\n'.join(problems))
    comparison = compare(args.work_dirs, args.metric)
    # Names of metrics come from logs, which anybody may have written.
    table = shown(comparison.to_markdown())
    print(comparison.to_json() if args.json else table, end='')
    if args.out is not None:
        for path in write(comparison, args.out):
            print(path, file=sys.stderr)


if __name__ == '__main__':
    sys.exit(run(main))
