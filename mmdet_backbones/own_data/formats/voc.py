"""Reads folders as in Pascal VOC: one XML for each image."""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from ...errors import UserError
from ..records import Annotations, Notes, Record, TruthBox
from ..scan import MOST_LIST, DataFiles, read_bytes, read_text, split_of
from ..values import composed, flag, number, size
from .pairing import Pairing, listed_classes

_LISTS = ('train', 'val', 'trainval', 'test')
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
_DECLARED = re.compile(rb'^\s*<\?xml[^>]*encoding\s*=\s*["\']([\w.:-]+)["\']')
# Codecs of Python's that no tool writes a file in, and that decode anything.
_NO_ENCODINGS = {'idna', 'punycode', 'undefined', 'unicode-escape', 'utf-7',
                 'raw-unicode-escape'}  # fmt: skip


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
    return Annotations(pairing.note_rest(records), listed_classes(found, notes))


def _record(
    name: str, found: DataFiles, notes: Notes, pairing: Pairing
) -> Record | None:
    try:
        root, guessed = parse_xml(read_bytes(found.root / name))
        whole = _size(root, guessed)
        named = _only(root, 'filename')
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        pairing.unusable(name, str(error), 'its XML cannot be used')
        return None
    image = pairing.image(name, named)
    if image is None:
        return None
    if guessed is not None:
        notes.add(name, 'not UTF-8, nor what it declares', f'read as {guessed}')
    if whole is None:
        notes.add(
            name, 'gives no size of its image', 'kept: the size is the image file'
        )
    nodes = root.findall('object')
    inner = sum(1 for _ in root.iter('object')) - len(nodes)
    if inner:
        notes.add(name, 'object within an object', 'object dropped', inner)
    boxes = []
    for i, node in enumerate(nodes, 1):
        try:
            boxes.append(_box(node))
        except ValueError as error:
            notes.add(name, str(error), 'object dropped', place=f'object {i}')
    return Record(image, name, boxes, split_of(image), whole)


def _size(root: Element, guessed: str | None) -> tuple[int, int] | None:
    """Return the size of a picture; None if there is none that can be.

    Raises:
        XMLError: If the file is no annotation, or says two things.
    """
    if root.tag != 'annotation':
        raise XMLError(f'XML of another kind: <{root.tag[:40]}>')
    labels = [node.findtext('name') or '' for node in root.iter('object')]
    if guessed is not None and not all(label.isascii() for label in labels):
        raise XMLError(
            'not UTF-8, and so its classes are not certain: save it as UTF-8'
        )
    given = [_only(root, f'size/{side}') for side in ('width', 'height')]
    try:
        return size(*given)
    except ValueError:
        return None


def _only(node: Element, path: str) -> str | None:
    """Return the text of a part; None without one.

    Raises:
        XMLError: If there are several, which do not agree.
    """
    texts = {(part.text or '').strip() for part in node.findall(path)}
    if len(texts) > 1:
        raise XMLError(f'several <{path.replace("/", "> <")}> that do not agree')
    return texts.pop() if texts else None


def _box(node: Element) -> TruthBox:
    given = [_only(node, f'bndbox/{side}') for side in _SIDES]
    try:
        x0, y0, x1, y1 = map(number, given)
    except ValueError:
        x0 = y0 = x1 = y1 = float('nan')
    try:
        ignore = flag(_only(node, 'difficult'))
    except ValueError as error:
        raise XMLError(f'<difficult>: {error}') from error
    label = composed(_only(node, 'name') or '').strip()
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
    spelled = {composed(stem): record for stem, record in known.items()}
    for record in records:
        record.split = None
    train = 'train' if 'train' in lists else 'trainval'
    for split, name in (('train', train), ('val', 'val'), ('test', 'test')):
        if name not in lists:
            continue
        try:
            lines = read_text(found.root / lists[name], MOST_LIST).splitlines()
        except (OSError, ValueError) as error:
            notes.add(lists[name], str(error), 'not used')
            continue
        for stem in (line.split()[0] for line in lines if line.strip()):
            own = PurePosixPath(stem).name
            listed = known.get(own) or spelled.get(composed(own))
            if listed is None:
                problem = f'lists what has no usable XML and image: {stem}'
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
        XMLError: If it is empty, damaged, or declares entities.
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
    wide = {b'<\0': 'utf-16-le', b'\0<': 'utf-16-be'}.get(content[:2])
    encoding = declared[1].decode('ascii').lower() if declared else 'utf-8'
    try:
        known = codecs.lookup(encoding).name
    except LookupError:
        known = ''
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = 'utf-16'
    elif wide is not None:
        encoding = wide
    elif known == 'utf-8' or known.startswith(('utf-16', 'utf-32')):
        # That it declares a wide encoding can be read, so it is not in one.
        encoding = 'utf-8-sig'
    try:
        if known in _NO_ENCODINGS:
            raise LookupError(encoding)
        return content.decode(encoding), None
    except (UnicodeError, LookupError):
        return content.decode('latin-1'), 'Latin-1'
