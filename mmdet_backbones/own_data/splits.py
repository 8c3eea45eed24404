"""Which images are to train on and which to measure on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .images import Facts
from .near_copies import pairs_alike
from .placing import SPLITS
from .records import Notes, Record

_MEANS_LITTLE = 'kept; what is measured on it means little'


def settle(
    records: list[Record],
    facts: Mapping[str, Facts],
    share: float,
    seed: int,
    notes: Notes,
) -> dict[str, list[Record]]:
    """Return the images to train on, to measure on, and to test on if there are any.

    Where a folder has no images to measure on, its test images are that.

    Args:
        records: The good images; their own splits are kept if there are both.
        facts: The images by name. Equal files stay on one side of a drawn split.
        share: Part of the images to measure on, if the split is drawn.
        seed: The same seed draws the same split.
        notes: Where images that are in none are told, and those that are in two.

    Raises:
        UserError: If there are too few images for two sides.
    """
    splits = _given(records, notes) or _drawn(records, facts, share, seed, notes)
    _note_copies(splits, facts, notes)
    return splits


def _given(records: list[Record], notes: Notes) -> dict[str, list[Record]]:
    """Return the folder's own splits; nothing if one is not there."""
    sides = _sides(records)
    if 'val' not in sides and 'test' in sides:
        sides['val'] = sides.pop('test')
    if not {'train', 'val'} <= sides.keys():
        return {}
    for record in sides.pop(None, []):
        notes.add(record.name, 'in no split')
    return _measurable(sides, notes)


def _drawn(
    records: list[Record],
    facts: Mapping[str, Facts],
    share: float,
    seed: int,
    notes: Notes,
) -> dict[str, list[Record]]:
    """Draw a split; what there is to test on stays that."""
    sides = _sides(records)
    test = sides.get('test', []) if len(sides) > 1 else []
    rest = [record for record in records if record.split != 'test' or not test]
    splits = _draw(rest, facts, share, seed, notes)
    return _measurable(splits | ({'test': test} if test else {}), notes)


def _sides(records: list[Record]) -> dict[str | None, list[Record]]:
    sides: dict[str | None, list[Record]] = {}
    for record in records:
        sides.setdefault(record.split, []).append(record)
    return sides


def _measurable(
    sides: Mapping[Any, list[Record]], notes: Notes
) -> dict[str, list[Record]]:
    """Leave a test out that shows nothing, which mmdet would not begin."""
    test = sides.get('test', [])
    shown = not test or any(record.boxes for record in test)
    if not shown:
        notes.add('split test', 'no box in the whole split', count=len(test))
    wanted = SPLITS if shown else SPLITS[:-1]
    return {split: sides[split] for split in wanted if split in sides}


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
    splits: Mapping[str, list[Record]], facts: Mapping[str, Facts], notes: Notes
) -> None:
    """Note the files that are there twice, and pictures that look like one to learn."""
    first: dict[str, tuple[str, Record]] = {}
    for split, records in splits.items():
        for record in records:
            where, other = first.setdefault(facts[record.name].digest, (split, record))
            if where != split:
                problem = f'the same picture, one in {where}, one in {split}'
                notes.add(record.name, f'{problem}: {other.name}', _MEANS_LITTLE)
            elif other is not record:
                notes.add(record.name, f'the same picture twice: {other.name}', 'kept')
    train = splits['train']
    known = [facts[record.name].look for record in train]
    for split in [name for name in splits if name != 'train']:
        asked = [
            record for record in splits[split]
            if first[facts[record.name].digest][0] == split
        ]  # fmt: skip
        alike = pairs_alike(known, [facts[record.name].look for record in asked])
        for mine, theirs in sorted(alike.items()):
            problem = f'looks like a picture in train, is in {split}'
            notes.add(
                asked[mine].name, f'{problem}: {train[theirs].name}', _MEANS_LITTLE
            )
