"""Build every backbone once and write catalog/levels.json and docs/timm.md.

timm takes half an hour on two cores. An interrupted run goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.catalog.entries import SOURCES
from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.errors import run
from mmdet_backbones.upkeep.pages import timm_page
from mmdet_backbones.upkeep.sweep import TIME_LIMIT, update_figures

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--source', nargs='+', choices=list(SOURCES))
    parser.add_argument('--only', default='', metavar='PATTERN',
                        help='keep the figures of the others')  # fmt: skip
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--limit', type=float, default=TIME_LIMIT, metavar='SECONDS')
    return parser.parse_args()


def main() -> None:
    from rich.progress import track

    args = parse_args()
    for name in args.source or SOURCES:
        record = ROOT / 'work_dirs' / 'catalog' / f'{name}.jsonl'
        found = update_figures(
            name,
            args.only,
            args.jobs,
            args.limit,
            None if args.only else record,
            lambda results, total, name=name: track(results, name, total),
        )
        usable = sum(model.usable for model in found.models.values())
        print(f'{name}: {usable} of {len(found.models)} can be used')
    if 'timm' in read_figures():
        (ROOT / 'docs' / 'timm.md').write_text(timm_page(read_figures()['timm']))


if __name__ == '__main__':
    sys.exit(run(main))
