"""Reads folders with annotation files in COCO's format."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from ...errors import UserError
from ..records import Annotations, Notes, Record, TruthBox, some
from ..scan import DataFiles, read_json, split_of
from ..values import composed, flag, key, number, size, text


def read(found: DataFiles, notes: Notes) -> Annotations:
    """Read the annotation file of each split, or the only one.

    Raises:
        UserError: If several files are of one split, or say nothing of a split.
    """
    for name, why in found.broken.items():
        notes.add(name, why, 'not read')
    records: list[Record] = []
    classes: dict[str, None] = {}
    used: dict[str, str] = {}
    finder, listed = _Finder(found), False
    categories: list[Any] = []
    for split, name in _files(found).items():
        reader = _Reader(finder, notes, name, split or None, used)
        try:
            content = read_json(found.root / name)
        except ValueError as error:
            notes.add(name, f'damaged JSON: {error}', 'not read')
            continue
        records += reader.read(content)
        categories += _as_list(content.get('categories'))
        listed = bool(categories)
        classes |= dict.fromkeys(label for label in reader.names.values() if label)
    for image in found.images:
        if image not in used and not notes.mentions(image):
            notes.add(image, 'image that no annotation file names')
    for label in _headings(categories, records) & classes.keys():
        del classes[label]
        problem = 'category without boxes that is the supercategory of others'
        notes.add(found.kinds['coco'][0], f'{problem}: {label}')
    # Of a list in which no class is good, none counts.
    return Annotations(records, tuple(classes) if listed else None)


def _headings(categories: list[Any], records: list[Record]) -> set[str]:
    """Return what stands among the classes only because others are below it.

    Roboflow's first category is such a one, and a detector would get an output for it.
    """
    used = {box.label for record in records for box in record.boxes}
    below = {}
    for category in categories:
        try:
            above = str(category.get('supercategory') or '')
            below[text(category['name'])] = composed(above).strip()
        except (AttributeError, KeyError, ValueError):
            continue
    above_others = set(below.values()) - used
    return {
        name for name in above_others & below.keys()
        if below[name].lower() in ('', 'none')
    }  # fmt: skip


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


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
            problems.append(f'{some(listed)} {of}')
    if problems:
        raise UserError(
            f"'{found.root}' holds {len(names)} annotation files: "
            f'{"; ".join(problems)}. Keep one file for each split, named train.json '
            'and val.json'
        )
    return {split: listed[0] for split, listed in files.items()}


class _Finder:
    """Finds the images that annotation files name."""

    def __init__(self, found: DataFiles) -> None:
        # A name as it stands counts more than the same one in another spelling.
        self.places = {composed(image): image for image in found.images}
        self.places |= {image: image for image in found.images}
        self.ends: dict[str, dict[str | None, list[str]]] = {}
        for image in found.images:
            end = composed(PurePosixPath(image).name)
            by_split = self.ends.setdefault(end, defaultdict(list))
            by_split[split_of(image)].append(image)

    def find(self, file_name: str, folder: PurePosixPath, split: str) -> str | None:
        """Return an image below the data's folder; None without one.

        Args:
            file_name: As an annotation file gives it.
            folder: Where that file is.
            split: What it is of, '' if nothing says.
        """
        wanted = PurePosixPath(file_name.replace('\\', '/'))
        if '..' in wanted.parts or wanted.is_absolute():
            wanted = PurePosixPath(wanted.name)
        for place in (
            *(folder, folder.parent, PurePosixPath()),
            *(folder.parent / part for part in (split, 'images')),
            folder.parent / 'images' / split,
        ):
            name = (place / wanted).as_posix()
            image = self.places.get(name) or self.places.get(composed(name))
            if image is not None:
                return image
        ends = self.ends.get(composed(wanted.name), {})
        mine = [ends[s] for s in {None, split or None} if s in ends] or [*ends.values()]
        return mine[0][0] if len(mine) == 1 == len(mine[0]) else None


class _Reader:
    """Reads one file."""

    def __init__(
        self,
        finder: _Finder,
        notes: Notes,
        name: str,
        split: str | None,
        used: dict[str, str],
    ) -> None:
        self.finder, self.notes, self.name = finder, notes, name
        self.split, self.used = split, used
        self.folder = PurePosixPath(name).parent
        self.names: dict[Any, str] = {}

    def read(self, content: dict[str, Any]) -> list[Record]:
        self.names = self._categories(content.get('categories'))
        boxes = self._boxes(content['annotations'])
        entries = self._entries(content['images'])
        records = [self._record(*entry) for entry in entries.values()]
        for image, record in zip(entries, records, strict=True):
            if record is not None:
                record.boxes = boxes.get(image, [])
        orphans = [len(rest) for image, rest in boxes.items() if image not in entries]
        if orphans:
            self.notes.add(self.name, 'box of an image that is not listed',
                           'box dropped', sum(orphans))  # fmt: skip
        return [record for record in records if record is not None]

    def _categories(self, given: Any) -> dict[Any, str]:
        """Return the classes by their id; '' for an id that has several."""
        names: dict[Any, str] = {}
        for i, category in enumerate(_as_list(given)):
            place = f'categories[{i}]'
            try:
                number_, name = key(category['id']), text(category['name'])
            except (TypeError, KeyError, ValueError):
                self.notes.add(self.name, 'category without id or name',
                               'category dropped', place=place)  # fmt: skip
                continue
            if names.setdefault(number_, name) != name:
                problem = f'category id with several names: {number_}, such as {name}'
                self.notes.add(self.name, problem, 'its boxes are dropped', place=place)
                names[number_] = ''
        # Words stand behind numbers: the two have no order.
        return dict(sorted(names.items(), key=lambda n: (isinstance(n[0], str), n[0])))

    def _entries(self, images: list[Any]) -> dict[Any, tuple[str, str, Any]]:
        """Return by its id where an image stands, its file, and what is said of it."""
        found: dict[Any, tuple[str, str, Any]] = {}
        unclear: set[Any] = set()
        for i, entry in enumerate(images):
            place = f'images[{i}]'
            try:
                number_, file_name = key(entry['id']), entry['file_name']
                if not file_name or not isinstance(file_name, str):
                    file_name = text(file_name)
            except (TypeError, KeyError, ValueError):
                self.notes.add(self.name, 'image without id or file_name',
                               'entry dropped', place=place)  # fmt: skip
                continue
            problem = f'duplicate image id: {number_} in {self.name}'
            first = found.setdefault(number_, (place, file_name, entry))
            if first[0] != place:
                self.notes.add(file_name, problem, place=place)
            if first[1] != file_name and number_ not in unclear:
                # Whose boxes they are, nobody can say.
                unclear.add(number_)
                self.notes.add(first[1], problem, place=first[0])
        return {k: entry for k, entry in found.items() if k not in unclear}

    def _record(self, place: str, file_name: str, entry: Any) -> Record | None:
        image = self.finder.find(file_name, self.folder, self.split or '')
        if image is None:
            self.notes.add(
                file_name, f'listed, but there is no such image: in {self.name}'
            )
            return None
        if image in self.used:
            self.notes.add(image, f'duplicate name: {self.name} lists it again')
            return None
        self.used[image] = self.name
        whole = None
        try:
            whole = size(entry.get('width'), entry.get('height'))
        except ValueError:
            self.notes.add(self.name, 'width and height that are no size',
                           'kept: the size is the image file', place=place)  # fmt: skip
        return Record(image, self.name, [], self.split or split_of(image), whole)

    def _boxes(self, annotations: list[Any]) -> dict[Any, list[TruthBox]]:
        boxes = defaultdict(list)
        for i, entry in enumerate(annotations):
            try:
                x, y, width, height = map(number, _listed(entry['bbox']))
                category, image = key(entry['category_id']), key(entry['image_id'])
            except (TypeError, KeyError, ValueError):
                self.notes.add(self.name, 'annotation without a box', 'dropped',
                               place=f'annotations[{i}]')  # fmt: skip
                continue
            try:
                ignore = flag(entry.get('iscrowd')) or flag(entry.get('ignore'))
            except ValueError:
                self.notes.add(self.name, 'iscrowd or ignore is neither 0 nor 1',
                               'box dropped', place=f'annotations[{i}]')  # fmt: skip
                continue
            label = self.names.get(category, f'number {category}')
            outline = entry.get('segmentation') or None
            box = TruthBox(label, (x, y, x + width, y + height), ignore, outline)
            boxes[image].append(box)
        return boxes


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f'a list, got {type(value).__name__}')
    return value
