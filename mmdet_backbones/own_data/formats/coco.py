"""Reads folders with annotation files in COCO's format."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from ...errors import UserError
from ..records import Annotations, Notes, Record, TruthBox
from ..scan import DataFiles, read_json, split_of


def read(found: DataFiles, notes: Notes) -> Annotations:
    """Read the annotation file of each split, or the only one.

    Raises:
        UserError: If several files are of one split, or say nothing of a split.
    """
    for name in found.broken:
        notes.add(name, 'damaged JSON', 'not read')
    records: list[Record] = []
    classes: dict[str, None] = {}
    used: dict[str, str] = {}
    for split, name in _files(found).items():
        content = read_json(found.root / name)
        names = _categories(content, name, notes)
        classes |= dict.fromkeys(names.values())
        records += _Reader(found, notes, name, split or None, names, used).read(content)
    for image in found.images:
        if image not in used and not notes.mentions(image):
            notes.add(image, 'image that no annotation file names')
    return Annotations(records, tuple(classes) or None)


def _files(found: DataFiles) -> dict[str, str]:
    """Annotation file by split, '' where there is only one and nothing says."""
    names, files = found.kinds['coco'], defaultdict(list)
    if len(names) == 1:
        return {split_of(names[0], whole=True) or '': names[0]}
    for name in names:
        files[split_of(name, whole=True) or ''].append(name)
    problems = []
    for split, listed in files.items():
        # COCO's own folder holds instances_, captions_ and person_keypoints_.
        chosen = [n for n in listed if PurePosixPath(n).name.startswith('instances_')]
        if len(chosen) == 1:
            listed[:] = chosen
        if len(listed) > 1 or not split:
            of = f'are all of {split}' if split else 'say not of which split they are'
            problems.append(f'{", ".join(listed)} {of}')
    if problems:
        raise UserError(
            f"'{found.root}' holds {len(names)} annotation files: "
            f'{"; ".join(problems)}. Keep one file for each split, named train.json '
            'and val.json'
        )
    return {split: listed[0] for split, listed in files.items()}


def _categories(content: dict[str, Any], name: str, notes: Notes) -> dict[Any, str]:
    names, categories = {}, content.get('categories')
    for category in categories if isinstance(categories, list) else []:
        try:
            names[int(category['id'])] = str(category['name'])
        except (TypeError, KeyError, ValueError, OverflowError):
            notes.add(name, 'category without id or name', 'category dropped')
    return dict(sorted(names.items()))


class _Reader:
    """Reads one file."""

    def __init__(
        self,
        found: DataFiles,
        notes: Notes,
        name: str,
        split: str | None,
        names: dict[Any, str],
        used: dict[str, str],
    ) -> None:
        self.found, self.notes, self.name = found, notes, name
        self.split, self.names, self.used = split, names, used
        self.images = set(found.images)
        self.folder = PurePosixPath(name).parent

    def read(self, content: dict[str, Any]) -> list[Record]:
        boxes = self._boxes(content['annotations'])
        records: list[Record] = []
        seen: set[Any] = set()
        for entry in content['images']:
            record = self._record(entry, seen)
            if record is not None:
                record.boxes = boxes.pop(int(entry['id']), [])
                records.append(record)
        orphans = {key: rest for key, rest in boxes.items() if key not in seen}
        if orphans:
            count = sum(len(rest) for rest in orphans.values())
            self.notes.add(self.name, 'box of an image that is not listed',
                           'box dropped', count)  # fmt: skip
        return records

    def _record(self, entry: Any, seen: set[Any]) -> Record | None:
        try:
            number, file_name = int(entry['id']), str(entry['file_name'])
        except (TypeError, KeyError, ValueError, OverflowError):
            self.notes.add(self.name, 'image without id or file_name', 'entry dropped')
            return None
        if number in seen:
            self.notes.add(file_name, f'duplicate image id {number} in {self.name}')
            return None
        seen.add(number)
        image = self._find(file_name)
        if image is None:
            self.notes.add(
                file_name, f'listed in {self.name}, but there is no such image'
            )
            return None
        if image in self.used:
            self.notes.add(image, f'duplicate name: {self.name} lists it again')
            return None
        self.used[image] = self.name
        size = (entry.get('width'), entry.get('height'))
        whole = size if all(isinstance(v, int) and v > 0 for v in size) else None
        return Record(image, self.name, [], self.split or split_of(image), whole)

    def _find(self, file_name: str) -> str | None:
        wanted = PurePosixPath(file_name.replace('\\', '/'))
        if '..' in wanted.parts or wanted.is_absolute():
            wanted = PurePosixPath(wanted.name)
        split = self.split or ''
        for place in (
            *(self.folder, self.folder.parent, PurePosixPath()),
            *(self.folder.parent / part for part in (split, 'images')),
            *(self.folder.parent / 'images' / part for part in (split,)),
        ):
            if (place / wanted).as_posix() in self.images:
                return (place / wanted).as_posix()
        ends = self.found.stems.get(wanted.stem, [])
        ends = [i for i in ends if PurePosixPath(i).name == wanted.name]
        mine = [i for i in ends if split_of(i) in (None, self.split)] or ends
        return mine[0] if len(mine) == 1 else None

    def _boxes(self, annotations: list[Any]) -> dict[Any, list[TruthBox]]:
        boxes = defaultdict(list)
        for entry in annotations:
            try:
                x, y, width, height = map(float, _listed(entry['bbox']))
                category, image = entry['category_id'], int(entry['image_id'])
                label = self.names.get(category, f'number {category}')
            except (TypeError, KeyError, ValueError, OverflowError):
                self.notes.add(self.name, 'annotation without a box', 'dropped')
                continue
            ignore = bool(entry.get('iscrowd')) or bool(entry.get('ignore'))
            outline = entry.get('segmentation') or None
            box = TruthBox(label, (x, y, x + width, y + height), ignore, outline)
            boxes[image].append(box)
        return boxes


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f'a list, got {type(value).__name__}')
    return value
