"""Reads folders as in Pascal VOC: one XML for each image."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import UserError
from ..records import Annotations, Notes, Record, TruthBox
from ..scan import DataFiles, split_of
from .pairing import Pairing, listed_classes

_LISTS = ('train', 'val', 'trainval', 'test')
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
_DECLARED = re.compile(rb'^\s*<\?xml[^>]*encoding\s*=\s*["\']([\w.:-]+)["\']')
_LARGEST = 32 << 20


class XMLError(ValueError):
    """An XML file that cannot be read; says why."""


def read(found: DataFiles, notes: Notes) -> Annotations:
    """Read every XML and the lists of splits in ImageSets/Main."""
    pairing, records = Pairing(found, notes), []
    for name in found.kinds['voc']:
        record = _record(name, found, notes, pairing)
        if record is not None:
            records.append(record)
    _count_from_zero(records, notes)
    _set_splits(records, found, notes)
    return Annotations(pairing.note_rest(records), listed_classes(found))


def _record(
    name: str, found: DataFiles, notes: Notes, pairing: Pairing
) -> Record | None:
    root, fault = None, ''
    try:
        root, guessed = parse_xml((found.root / name).read_bytes())
        fault = _fault(root, guessed)
    except (XMLError, OSError) as error:
        fault = str(error)
    named = root.findtext('filename') if root is not None else None
    image = pairing.image(name, named)
    if root is None or fault:
        notes.add(name, fault)
        if image is not None:
            notes.add(image, 'its XML cannot be used')
        return None
    if image is None:
        return None
    if guessed is not None:
        notes.add(name, 'not UTF-8, nor what it declares', f'read as {guessed}')
    size = [_number(root, f'size/{side}') for side in ('width', 'height')]
    boxes = [_box(node) for node in root.iter('object')]
    whole = None if None in size else (int(size[0] or 0), int(size[1] or 0))
    if whole is None or min(whole) <= 0:
        notes.add(
            name, 'gives no size of its image', 'kept: the size is the image file'
        )
        whole = None
    return Record(image, name, boxes, split_of(image), whole)


def _fault(root: Element, guessed: str | None) -> str:
    if root.tag != 'annotation':
        return f'XML of another kind: <{root.tag[:40]}>'
    labels = [node.findtext('name') or '' for node in root.iter('object')]
    if guessed is not None and not all(label.isascii() for label in labels):
        return 'not UTF-8, and so its classes are not certain: save it as UTF-8'
    return ''


def _number(node: Element, path: str) -> float | None:
    try:
        value = float(node.findtext(path, ''))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _box(node: Element) -> TruthBox:
    sides = [_number(node, f'bndbox/{side}') for side in _SIDES]
    x0, y0, x1, y1 = (float('nan') if side is None else side for side in sides)
    ignore = (node.findtext('difficult') or '0').strip() == '1'
    label = (node.findtext('name') or '').strip()
    # Pascal VOC counts pixels from 1, and the last one is inside.
    return TruthBox(label, (x0 - 1, y0 - 1, x1, y1), ignore)


def _count_from_zero(records: list[Record], notes: Notes) -> None:
    """Undo the step from 1 to 0 where the folder's pixels count from 0 already."""
    boxes = [box for record in records for box in record.boxes]
    first = next((r for r in records for b in r.boxes if -1 in b.corners[:2]), None)
    if first is None:
        return
    for box in boxes:
        x0, y0, x1, y1 = box.corners
        box.corners = (x0 + 1, y0 + 1, x1, y1)
    notes.add(
        first.source,
        'a box begins at 0, where Pascal VOC counts from 1',
        'all boxes of the folder are taken to count from 0',
    )


def _set_splits(records: list[Record], found: DataFiles, notes: Notes) -> None:
    """Follow the lists; a folder of several years has some for each year."""
    lists: dict[Path, dict[str, str]] = defaultdict(dict)
    for name in found.files['.txt']:
        home = Path(name).parent
        if home.parts[-2:] == ('ImageSets', 'Main') and Path(name).stem in _LISTS:
            lists[home.parent.parent][Path(name).stem] = name
    for home, named in lists.items():
        mine = [r for r in records if Path(r.name).is_relative_to(home)]
        _follow(named, mine, found, notes)


def _follow(
    lists: dict[str, str], records: list[Record], found: DataFiles, notes: Notes
) -> None:
    known = {Path(record.name).stem: record for record in records}
    for record in records:
        record.split = None
    train = 'train' if 'train' in lists else 'trainval'
    for split, name in (('train', train), ('val', 'val'), ('test', 'test')):
        if name not in lists:
            continue
        text = (found.root / lists[name]).read_text(encoding='utf-8', errors='replace')
        for stem in (line.split()[0] for line in text.splitlines() if line.strip()):
            listed = known.get(Path(stem).name)
            if listed is None:
                problem = f'lists {stem}, which has no usable XML and image'
                notes.add(lists[name], problem)
            elif listed.split is None or (split == 'val' and train == 'trainval'):
                listed.split = split
            elif listed.split != split:
                problem = f'listed in {listed.split} and in {split}'
                notes.add(listed.name, problem, f'kept in {listed.split}')


def parse_xml(content: bytes) -> tuple[Element, str | None]:
    """Parse an XML file; entities are refused, nothing outside it is looked at.

    Args:
        content: The file.

    Returns:
        The root, and the encoding if that is neither UTF-8 nor what the file declares.

    Raises:
        XMLError: If it is empty, damaged, too large, or declares entities.
        UserError: If defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ModuleNotFoundError as error:
        raise UserError(
            'XML files are read with defusedxml, which is not installed: write\n'
            '  pip install defusedxml'
        ) from error
    if not content.strip():
        raise XMLError('empty file')
    if len(content) > _LARGEST:
        raise XMLError(f'XML of {len(content) >> 20} MiB: at most {_LARGEST >> 20}')
    text, guessed = _decode(content)
    try:
        # The encoding of a str counts more than the one that the file declares.
        return fromstring(text), guessed
    except DefusedXmlException as error:
        raise XMLError('XML with entities, which may be an attack: refused') from error
    except ParseError as error:
        raise XMLError(f'damaged XML: {error}') from error


def _decode(content: bytes) -> tuple[str, str | None]:
    declared = _DECLARED.match(content)
    if content.startswith((b'\xff\xfe', b'\xfe\xff')):
        encoding = 'utf-16'
    else:
        encoding = declared[1].decode('ascii') if declared else 'utf-8'
        if encoding.lower() in ('utf-8', 'utf8'):
            encoding = 'utf-8-sig'
    try:
        return content.decode(encoding), None
    except (UnicodeDecodeError, LookupError):
        return content.decode('latin-1'), 'Latin-1'
