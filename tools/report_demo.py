"""Write metrics, curves and pictures of a finished demo training, and sum it up."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmdet_backbones.demo.report import Report, write_report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work directory of the training')
    parser.add_argument('--results', type=Path, help='default: WORK_DIR/test.bbox.json')
    parser.add_argument('--timings', type=Path, help='default: WORK_DIR/timings.json')
    parser.add_argument('--ann', type=Path, default=Path('data/trees/val.json'))
    parser.add_argument('--images', type=Path, default=Path('data/trees/val'))
    parser.add_argument('--score', type=float, default=0.3, help='lowest score drawn')
    return parser.parse_args()


def show(report: Report) -> None:
    table = Table('what', title='demo', min_width=50)
    table.add_column('result', overflow='fold')
    for name in ('AP', 'AP50'):
        table.add_row(name, f'{report.metrics[name]:.3f}')
    table.add_section()
    for part, seconds in report.timings.items():
        table.add_row(part, f'{seconds:.0f} s')
    table.add_row('all', f'{sum(report.timings.values()):.0f} s')
    table.add_section()
    for what, path in report.files.items():
        table.add_row(what, str(path))
    Console().print(table)


def main() -> int:
    args = parse_args()
    results = args.results or args.work_dir / 'test.bbox.json'
    timings = args.timings or args.work_dir / 'timings.json'
    try:
        seconds = json.loads(timings.read_text()) if timings.exists() else {}
        report = write_report(
            args.work_dir, args.ann, args.images, results, seconds, args.score
        )
    except (ValueError, OSError) as error:
        print(f'report_demo: {error}', file=sys.stderr)
        return 1
    show(report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
