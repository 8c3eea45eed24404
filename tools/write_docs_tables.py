"""Write the tables of backbones in docs/ from the recorded figures."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.errors import UserError, run
from mmdet_backbones.upkeep.pages import backbone_pages

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true',
                        help='write nothing, fail if a page is old')  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    pages = {
        ROOT / 'docs' / p: text for p, text in backbone_pages(read_figures()).items()
    }
    old = [p for p, text in pages.items() if not p.is_file() or p.read_text() != text]
    if args.check and old:
        names = ', '.join(str(path.relative_to(ROOT)) for path in old)
        raise UserError(f'out of date: {names}: python tools/write_docs_tables.py')
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages[path])
    print(f'{len(pages)} pages, {len(old)} of them written')


if __name__ == '__main__':
    sys.exit(run(main))
