"""Write the tables of backbones in docs/ from the recorded figures."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.catalog.figures import (
    COUNT_SIZE,
    Figures,
    SourceFigures,
    read_figures,
    short_levels,
)
from mmdet_backbones.errors import UserError, run

ROOT = Path(__file__).resolve().parents[2]


def timm_page(figures: SourceFigures) -> str:
    """Write ``docs/timm.md``.

    Args:
        figures: Of timm.

    Returns:
        Markdown: how many models there are, and why the others cannot be used.
    """
    models = figures.models
    usable = sum(model.usable for model in models.values())
    refused = {n: m.refused for n, m in models.items() if m.refused is not None}
    failed = {n: m.failed for n, m in models.items() if m.failed is not None}
    return '\n'.join(
        [
            '# timm models as backbones',
            '',
            f'Models of timm {figures.version}, each built on the meta device as',
            '`TIMMBackbone` and run. Made by `python tools/upkeep/update_catalog.py',
            '--source timm` from `mmdet_backbones/catalog/levels.json`; do not edit.',
            '',
            '| models | number |',
            '|---|---|',
            f'| built | {len(models)} |',
            f'| usable | {usable} |',
            f'| refused | {len(refused)} |',
            f'| failed | {len(failed)} |',
            *_licences(models),
            *_reasons('Refused', refused),
            *_reasons('Failed', failed),
            '',
        ]
    )


def _licences(models: Mapping[str, Figures]) -> list[str]:
    counts = Counter(m.licence or 'no weights' for m in models.values() if m.usable)
    return [
        '',
        '## Licences of the weights',
        '',
        'Of the weights that are loaded if no others are named, as timm tells it;',
        '`mmdet-backbones inspect` tells it of the others. timm tells no accuracy in',
        'its package, so that there is none here either.',
        '',
        '| licence | models |',
        '|---|---|',
        *(f'| {name} | {count} |' for name, count in counts.most_common()),
    ]


def _reasons(title: str, reasons: dict[str, str]) -> list[str]:
    if not reasons:
        return []
    lines = ['', f'## {title}', '', '| model | reason |', '|---|---|']
    for name, reason in sorted(reasons.items()):
        short = reason.partition('cannot be a backbone: ')[2] or reason
        cell = ' '.join(short.split()).replace('|', '\\|')
        lines.append(f'| `{name.removeprefix("timm/")}` | {cell} |')
    return lines


def backbone_pages(figures: Mapping[str, SourceFigures]) -> dict[str, str]:
    """Write ``docs/backbones.md`` and a page of it for every source.

    Args:
        figures: By source.

    Returns:
        Markdown by the path below ``docs/``.
    """
    rows = []
    for source, content in figures.items():
        usable = sum(model.usable for model in content.models.values())
        title = f'[{_title(source)}](backbones/{source}.md)'
        rows.append(f'| {title} | {content.version} | {usable} |')
    start = [
        '# Backbones',
        '',
        'What can be put into a detector, by the name that `mmdet-backbones swap`',
        'and `mmdet-backbones inspect` take. Parameters are those of the whole',
        'backbone without any head; a level `256@8` has 256 channels at stride 8, and',
        '`x12` says that twelve levels are alike. Multiply-adds (GMACs) are those of',
        f'an image of {COUNT_SIZE[0]} x {COUNT_SIZE[1]}, or of the one size that a',
        'backbone takes; `mmdet-backbones inspect NAME --size 800 1333` counts them',
        'for others.',
        '',
        'Top-1 (on ImageNet-1k, in percent) and licence are those of the weights that',
        'are loaded if no others are named, as the library tells them: the package of',
        'timm tells licences and no accuracies, mmpretrain accuracies and no licences,',
        'torchvision accuracies and few licences. `unknown` may be free or not, and',
        'the images that weights were trained on have terms of their own.',
        '',
        '| source | version | backbones |',
        '|---|---|---|',
    ]
    end = ['', _MADE, '']
    pages = {'backbones.md': '\n'.join([*start, *rows, *end])}
    for source, content in figures.items():
        pages[f'backbones/{source}.md'] = _source_page(source, content)
    return pages


_MADE = (
    'Made by `python tools/upkeep/write_docs_tables.py` from\n'
    '`mmdet_backbones/catalog/levels.json`; do not edit.'
)


def _title(source: str) -> str:
    return 'ours' if source == 'ours' else f'`{source}/...`'


def _source_page(source: str, figures: SourceFigures) -> str:
    columns = ['name', 'levels, channels@stride', 'parameters', 'GMACs', 'top-1']
    columns.append('licence of the weights')
    rows = [
        [
            f'`{name}`',
            short_levels(model.levels),
            f'{model.parameters / 1e6:.2f} M',
            _macs(model),
            '-' if model.top1 is None else f'{model.top1:.1f}',
            model.licence or 'no weights',
        ]
        for name, model in figures.models.items()
        if model.usable
    ]
    if source == 'ours':  # whose weights are those of other sources
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    table = [columns, ['---'] * len(columns), *rows]
    return '\n'.join(
        [
            f'# Backbones: {source} {figures.version}',
            '',
            _MADE,
            '',
            *(f'| {" | ".join(row)} |' for row in table),
            '',
        ]
    )


def _macs(model: Figures) -> str:
    size = '' if model.size == COUNT_SIZE else f' at {model.size[0]} x {model.size[1]}'
    return f'{model.macs / 1e9:.2f}{size}'


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
        raise UserError(
            f'out of date: {names}: python tools/upkeep/write_docs_tables.py'
        )
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages[path])
    print(f'{len(pages)} pages, {len(old)} of them written')


if __name__ == '__main__':
    sys.exit(run(main))
