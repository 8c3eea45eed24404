"""Which images are to train on and which to measure on."""

from __future__ import annotations

import random
from collections.abc import Mapping

from ..errors import UserError
from .images import Facts
from .records import Notes, Record


def settle(
    records: list[Record],
    facts: Mapping[str, Facts],
    share: float,
    seed: int,
    notes: Notes,
) -> dict[str, list[Record]]:
    """Return the images to train on and to measure on.

    Args:
        records: The good images; their own splits are kept if there are both.
        facts: The images by name. Equal files stay on one side of a drawn split.
        share: Part of the images to measure on, if the split is drawn.
        seed: The same seed draws the same split.
        notes: Where images that are in neither are told.

    Raises:
        UserError: If there are too few images for two sides.
    """
    given = {record.split for record in records}
    held_out = 'val' if 'val' in given else 'test'
    _note_copies(records, facts, notes)
    if not {'train', held_out} <= given:
        return _draw(records, facts, share, seed, notes)
    for record in records:
        if record.split is None:
            notes.add(record.name, 'in no split')
        elif record.split not in ('train', held_out):
            # A whole split is one thing to tell.
            notes.add(f'split {record.split}', f'in the split {record.split}')
    return {
        'train': [record for record in records if record.split == 'train'],
        'val': [record for record in records if record.split == held_out],
    }


def _draw(
    records: list[Record],
    facts: Mapping[str, Facts],
    share: float,
    seed: int,
    notes: Notes,
) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.name):
        groups.setdefault(facts[record.name].digest, []).append(record)
    if len(groups) < 2:
        raise UserError(
            f'{len(groups)} good image(s): a split into train and val takes two or '
            f'more{notes.worst()}'
        )
    drawn = list(groups.values())
    random.Random(seed).shuffle(drawn)
    count = min(max(1, round(share * len(drawn))), len(drawn) - 1)
    sides = {'train': drawn[count:], 'val': drawn[:count]}
    return {
        split: sorted((r for group in side for r in group), key=lambda r: r.name)
        for split, side in sides.items()
    }


def _note_copies(
    records: list[Record], facts: Mapping[str, Facts], notes: Notes
) -> None:
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(facts[record.name].digest, record)
        if other is not record:
            leak = record.split != other.split
            where = f', one in {other.split}, one in {record.split}' if leak else ''
            done = 'kept; what is measured on it means little' if leak else 'kept'
            notes.add(record.name, f'the same picture as {other.name}{where}', done)
