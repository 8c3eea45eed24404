"""Put backbones into detectors of mmdet and write which pairs run, as a table.

Every pair of the tables takes about two hours on two cores. Interrupted, the same
command goes on where it stopped; --fresh starts anew.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.errors import run
from mmdet_backbones.upkeep import matrix

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--detectors', nargs='+', choices=list(matrix.DETECTORS),
                        default=list(matrix.DETECTORS), metavar='NAME')  # fmt: skip
    parser.add_argument('--backbones', nargs='+', default=list(matrix.BACKBONES))
    parser.add_argument('--record', type=Path,
                        default=ROOT / 'work_dirs/detector_matrix.jsonl')  # fmt: skip
    parser.add_argument('--out', type=Path,
                        default=ROOT / 'benchmarks/detector_matrix.md')  # fmt: skip
    parser.add_argument('--limit', type=float, default=300, help='seconds for a pair')
    parser.add_argument('--fresh', action='store_true', help='forget the record')
    parser.add_argument('--cells', nargs='+', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.cells:
        matrix.try_cells(args.record, args.cells[0], args.cells[1:], args.limit)
        return
    if args.fresh:
        args.record.unlink(missing_ok=True)
    cells = [(d, b) for d in args.detectors for b in args.backbones]
    worker = [sys.executable, __file__, '--record', str(args.record),
              '--limit', str(args.limit)]  # fmt: skip
    for entry in matrix.fill(args.record, cells, args.limit, worker):
        state = entry.get('reason') or f'works, {entry["seconds"]} s'
        print(f'{entry["detector"]}, {entry["backbone"]}: {state}', flush=True)
    command = 'python tools/detector_matrix.py'
    args.out.write_text(matrix.page(args.record, cells, command))
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run(main))
