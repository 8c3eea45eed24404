"""What a folder says in every format: whose image it is, and its list of classes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..records import LEFT_OUT, Notes, Record
from ..scan import DataFiles

# Folders that say what is in them, not to which part of the data it belongs.
_ROLES = {
    *('annotations', 'annotation', 'labels', 'label', 'xml', 'xmls', 'json', 'jsons'),
    *('jpegimages', 'images', 'image', 'img', 'imgs', 'txt', 'bboxes'),
}

_LISTS = ('classes.txt', 'labels.txt', 'obj.names', 'predefined_classes.txt')
# What labelme puts at the head of its list; no object is of these.
_NO_CLASSES = ('__ignore__', '_background_')


class Pairing:
    """Gives every annotation file its image, and every image to one file only.

    Args:
        found: The folder's files.
        notes: Where problems go.
    """

    def __init__(self, found: DataFiles, notes: Notes) -> None:
        self.found = found
        self.notes = notes
        self.taken: dict[str, str] = {}

    def image(self, annotation: str, named: str | None = None) -> str | None:
        """Return the image of an annotation file; None, and a note, without one.

        Args:
            annotation: The file.
            named: The image as the file itself calls it; only its last part counts.
        """
        own = PurePosixPath((named or '').replace('\\', '/')).name
        stem = Path(annotation).stem
        candidates = self.found.stems.get(stem) or self.found.stems.get(Path(own).stem)
        if not candidates:
            self.notes.add(annotation, f'no image for it (looked for {own or stem})')
            return None
        near = [c for c in candidates if _place(c) == _place(annotation)]
        if not near and len(candidates) > 1:
            listed = ', '.join(candidates)
            self.notes.add(annotation, f'duplicate name: it may belong to {listed}')
            for candidate in candidates:
                self.notes.add(
                    candidate, f'duplicate name: {annotation} may be its own'
                )
            return None
        near = near or candidates
        image = next((n for n in near if PurePosixPath(n).name == own), near[0])
        for other in near:
            if other != image:
                self.notes.add(other, f'duplicate name: {annotation} is of {image}')
        return self._take(annotation, image)

    def _take(self, annotation: str, image: str) -> str | None:
        if image in self.taken:
            first = self.taken[image]
            self.notes.add(annotation, f'duplicate name: {image} is read from {first}')
            return None
        self.taken[image] = annotation
        return image

    def rest(self) -> list[str]:
        """Return the images that no file annotates and no note mentions."""
        return [
            image
            for image in self.found.images
            if image not in self.taken and not self.notes.mentions(image)
        ]

    def note_rest(self, records: list[Record]) -> list[Record]:
        """Note the images without annotation, which are no part of the data."""
        for image in self.rest():
            self.notes.add(image, 'image without annotation', LEFT_OUT)
        return records


def _place(name: str) -> tuple[str, ...]:
    parts = (part.lower() for part in PurePosixPath(name).parent.parts)
    return tuple(part for part in parts if part not in _ROLES)


def listed_classes(found: DataFiles) -> tuple[str, ...] | None:
    """Return the classes of a file such as classes.txt; None without one."""
    files = [*found.files['.txt'], *found.files['.names']]
    for wanted in _LISTS:
        for name in files:
            if Path(name).name.lower() == wanted:
                text = (found.root / name).read_text(encoding='utf-8', errors='replace')
                lines = [line.strip() for line in text.lstrip('\ufeff').splitlines()]
                names = [n for n in lines if n and n not in _NO_CLASSES]
                return tuple(dict.fromkeys(names)) or None
    return None


def yaml_settings(found: DataFiles) -> tuple[str, dict[str, Any]] | None:
    """Return the YAML file that names a YOLO data set's classes, and its content."""
    for name in [*found.files['.yaml'], *found.files['.yml']]:
        path = found.root / name
        if path.stat().st_size > 1 << 20:
            continue
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get('names'), (list, dict)):
            return name, content
    return None


def yaml_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the names in a YOLO data set's YAML, by number."""
    names = content['names']
    if isinstance(names, list):
        return tuple(_name(name, i) for i, name in enumerate(names))
    numbers = [key for key in names if isinstance(key, int) and 0 <= key < 10_000]
    last = max(numbers, default=-1)
    return tuple(_name(names.get(i), i) for i in range(last + 1))


def _name(given: Any, number: int) -> str:
    # A list in a YAML may hold itself many times over: it is never written out.
    plain = isinstance(given, (str, int, float))
    return str(given).strip() if plain else f'class {number}'
