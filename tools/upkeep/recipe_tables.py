"""The page on recipes, from the records of their trainings."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_INTRO = """# Recipes

What `mmdet-backbones swap` writes about training follows from the backbone's family,
the kind of detector, the number of images and that of iterations; `--recipe base`
keeps the optimiser, rates and hooks of the base. Every number in the header of a
swapped config names its source, which is a paper, a config of mmdet or a table below.

Trainings on fewer than 2,000 images or of fewer than 2,000 iterations get the recipe
for few: a rate that heads can learn with in the iterations there are, an average of the
weights over an eighth of them, warm-up for a twentieth, the full rate for half and then
a cosine, and no mosaic in the last tenth. The tables show what each part of it is
worth, one changed at a time.

Each row is the box AP (and AP50), in points, of the last weights on held-out images:
mean and, after ±, standard deviation over the seeds, whose number is behind.
EfficientNet-Lite0 with its ImageNet weights, batch 4, float32 on one CPU core. The
runs are lines of
`benchmarks/recipes.jsonl`, made by `python tools/upkeep/ablate_recipes.py`, and so is
this page (`--tables`); do not edit. A difference below the spread is none. What was
varied is compared with the recipe of its own column; RTMDet had a rate of 1e-3 for all
of it before its heads were found to want three times as much.

"""
_DATA = {
    'raccoon': '[datitran/raccoon_dataset](https://github.com/datitran/'
    'raccoon_dataset) (MIT): 200 photographs with 217 boxes in VOC XML; clone it and '
    'run `mmdet-backbones data raccoon_dataset -o raccoon`. 161 are trained on, 39 '
    'measured on.',
    'trees': 'the aerial photographs of `make demo` (MIT, from the wheel of '
    'deepforest), as it prepares them: three photographs in 112 tiles to train on, '
    'one in 9 tiles to measure on.',
}


def page(rows: Sequence[Row]) -> str:
    """Write ``docs/recipes.md``.

    Args:
        rows: Of the record.

    Returns:
        Markdown.
    """
    done = [row for row in rows if 'AP' in row]
    lines = [_INTRO]
    settings = dict.fromkeys((r['data'], r['size'], r['epochs']) for r in done)
    for setting in settings:
        chosen = [r for r in done if (r['data'], r['size'], r['epochs']) == setting]
        lines += _section(setting, chosen)
    lines += _unhelpful(done)
    failed = [row for row in rows if 'failed' in row]
    lines += [f'- {_name(row)}: failed: {_first(row["failed"])}' for row in failed]
    return '\n'.join(lines).rstrip() + '\n'


def _first(text: str) -> str:
    """The first sentence of a message."""
    return text.splitlines()[0].partition('. ')[0]


def _name(row: Row) -> str:
    return f'{row["detector"]}, {row["factor"]} {row["value"]}'


def _section(setting: tuple[str, int, int], rows: list[Row]) -> Iterator[str]:
    data, size, epochs = setting
    count = max(row['iterations'] for row in rows)
    yield f'## {data.capitalize()}, {size} pixels, {epochs} epochs ({count} iterations)'
    yield ''
    yield f'Data: {_DATA.get(data, data)}'
    yield ''
    detectors = list(dict.fromkeys(row['detector'] for row in rows))
    yield f'| factor | value | {" | ".join(detectors)} |'
    yield f'|---|---|{"---|" * len(detectors)}'
    cells = _cells(rows)
    factors = list(dict.fromkeys(row['factor'] for row in rows))
    kinds = dict.fromkeys((row['factor'], row['value']) for row in rows)
    for factor, value in sorted(kinds, key=lambda kind: factors.index(kind[0])):
        found = [_told(cells.get((factor, value, d))) for d in detectors]
        yield f'| {factor} | {value} | {" | ".join(found)} |'
    yield ''
    # A training that other work slowed down has none.
    minutes = sum(row.get('seconds', 0) for row in rows) / 60
    yield f'{len(rows)} trainings, {minutes:.0f} minutes in all.'
    yield ''


def _cells(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[(row['factor'], row['value'], row['detector'])].append(row)
    return found


def _told(rows: list[Row] | None) -> str:
    if not rows:
        return ''
    means = []
    for key in ('AP', 'AP50'):
        values = [100 * row[key] for row in rows]
        spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
        means.append(f'{statistics.mean(values):.1f}{spread}')
    return f'{means[0]} ({means[1]}), {len(rows)}'


def _unhelpful(rows: Sequence[Row]) -> list[str]:
    """What is not better than the recipe by more than the spread of both."""
    lines = ['## What did not help', '']
    settings = dict.fromkeys((r['data'], r['size'], r['epochs']) for r in rows)
    for setting in settings:
        here = [r for r in rows if (r['data'], r['size'], r['epochs']) == setting]
        cells = _cells(here)
        for (factor, value, detector), found in cells.items():
            recipe = cells.get(('recipe', 'as swap writes it', detector))
            if factor in ('recipe', 'size') or recipe is None:
                continue
            pairs = _pairs(found, recipe)
            if not pairs:
                continue
            gain = statistics.mean(pairs)
            if gain <= 0 or (len(pairs) > 1 and gain < statistics.stdev(pairs)):
                lines.append(
                    f'- {detector} on {setting[0]}: {factor} {value}: {gain:+.1f} AP '
                    f'over {len(pairs)} seed{"s" * (len(pairs) > 1)}.'
                )
    return [*lines, '']


def _pairs(some: list[Row], others: list[Row]) -> list[float]:
    """Differences of AP, in points, seed by seed."""
    by_seed = {row['seed']: row['AP'] for row in others}
    return [
        100 * (row['AP'] - by_seed[row['seed']])
        for row in some
        if row['seed'] in by_seed
    ]
