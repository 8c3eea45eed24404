"""What a folder says in every format: whose image it is, and its list of classes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import yaml

from ..records import LEFT_OUT, Notes, Record, some
from ..scan import DataFiles, read_bytes, read_text
from ..values import composed, text, whole

# Folders that say what is in them, not to which part of the data it belongs.
_ROLES = {
    *('annotations', 'annotation', 'labels', 'label', 'xml', 'xmls', 'json', 'jsons'),
    *('jpegimages', 'images', 'image', 'img', 'imgs', 'txt', 'bboxes'),
}

_LISTS = ('classes.txt', 'labels.txt', 'obj.names', 'predefined_classes.txt')
_MOST_YAML, _MOST_CLASSES = 512 << 10, 10_000
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
        self._near: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in found.images:
            self._near[(composed(Path(image).stem), *_place(image))].append(image)
        self._unclear: set[str] = set()

    def image(self, annotation: str, named: str | None = None) -> str | None:
        """Return the image of an annotation file; None, and a note, without one.

        Args:
            annotation: The file.
            named: The image as the file itself calls it; only its last part counts.
        """
        own = PurePosixPath((named or '').replace('\\', '/')).name
        stem = Path(annotation).stem
        stem = stem if self.found.of_stem(stem) else Path(own).stem
        candidates = self.found.of_stem(stem)
        if not candidates:
            self.notes.add(annotation, f'no image for it: looked for {own or stem}')
            return None
        near = self._near.get((composed(stem), *_place(annotation)), [])
        # Two spellings of one name are two images; its own is the annotation's.
        near = [n for n in near if Path(n).stem == stem] or near
        if not near and len(candidates) > 1:
            problem = f'duplicate name: it may belong to {some(candidates)}'
            self.notes.add(annotation, problem)
            # Each of many would name each of many.
            if stem not in self._unclear:
                self._unclear.add(stem)
                for image in candidates:
                    problem = f'duplicate name: {annotation} may be its own'
                    self.notes.add(image, problem)
            return None
        near = near or candidates
        image = next((n for n in near if PurePosixPath(n).name == own), near[0])
        for other in near:
            if other != image:
                self.notes.add(other, f'duplicate name: {annotation} is of {image}')
        return self._take(annotation, image)

    def unusable(self, annotation: str, why: str, so: str) -> None:
        """Note an annotation file that cannot be read, and so its image."""
        self.notes.add(annotation, why)
        stem = Path(annotation).stem
        near = self._near.get((composed(stem), *_place(annotation)), [])
        candidates = self.found.of_stem(stem)
        for image in near or (candidates if len(candidates) == 1 else []):
            self.notes.add(image, so)

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


def listed_classes(found: DataFiles, notes: Notes) -> tuple[str, ...] | None:
    """Return the classes of a file such as classes.txt; None without one."""
    files = [*found.files['.txt'], *found.files['.names']]
    lists = [n for wanted in _LISTS for n in files if Path(n).name.lower() == wanted]
    classes, source = None, ''
    for name in lists:
        try:
            lines = [composed(line).strip() for line in _lines(found, name)]
        except (OSError, ValueError) as error:
            notes.add(name, f'list of classes that cannot be read: {error}', 'not used')
            continue
        names = tuple(dict.fromkeys(n for n in lines if n and n not in _NO_CLASSES))
        if classes is None and names:
            classes, source = names, name
        elif names and names != classes:
            notes.add(name, f'lists other classes: than {source}', 'not used')
    return classes


def _lines(found: DataFiles, name: str) -> list[str]:
    return read_text(found.root / name).splitlines()


class _Plain(yaml.SafeLoader):
    """Takes every word as it is written: a class may be called no, 2020-01-01 or 1e3.

    Only null stays: a few lines of merging fill the memory. A tag of Python's is an
    error, as in the base.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, form) for tag, form in known if tag.endswith(':null')]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        own = [k.value for k, _ in pairs if isinstance(k, yaml.ScalarNode)]
        if len(set(own)) < len(own):
            twice = next(name for name in own if own.count(name) > 1)
            raise ValueError(f"'{twice}' stands twice in one place")
        return super().construct_mapping(node, deep)


def yaml_settings(found: DataFiles, notes: Notes) -> tuple[str, dict[str, Any]] | None:
    """Return the YAML file that names a YOLO data set's classes, and its content."""
    first: tuple[str, dict[str, Any]] | None = None
    for name in [*found.files['.yaml'], *found.files['.yml']]:
        try:
            content = yaml.load(read_bytes(found.root / name, _MOST_YAML), _Plain)
        except Exception as error:
            # PyYAML raises whatever a word stumbles over that is not what its tag says.
            why = ' '.join(str(error).split()) or type(error).__name__
            notes.add(name, f'YAML that cannot be read: {why}', 'not used')
            continue
        if not isinstance(content, dict) or not any(_names(content).values()):
            continue
        if first is None:
            first = name, content
        elif _names(content) != _names(first[1]):
            notes.add(name, f'names other classes: than {first[0]}', 'not used')
    return first


def yaml_classes(name: str, content: dict[str, Any], notes: Notes) -> tuple[str, ...]:
    """Return the names in a YOLO data set's YAML, by number."""
    names = _names(content)
    if len(names) < len(content['names']):
        notes.add(name, 'class under what is no number', 'class dropped')
    numbers = range(max(names) + 1)
    unnamed = [str(i) for i in numbers if not names.get(i)]
    if unnamed:
        notes.add(name, f'class numbers without a name: {some(unnamed)}',
                  'called class 0, class 1 and so on')  # fmt: skip
    return tuple(names.get(i) or f'class {i}' for i in numbers)


def _names(content: dict[str, Any]) -> dict[int, str]:
    """Return the names by number, '' for what is none."""
    given, found = content.get('names'), {}
    if isinstance(given, list):
        given = dict(enumerate(given))
    for number, name in given.items() if isinstance(given, dict) else ():
        try:
            index = whole(number)
        except ValueError:
            continue
        if 0 <= index < _MOST_CLASSES:
            try:
                # A list in a YAML may hold itself many times: never write it out.
                found[index] = text(name)
            except ValueError:
                found[index] = ''
    return found
