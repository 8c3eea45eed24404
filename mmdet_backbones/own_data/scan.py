"""What files a folder holds, and in which format they annotate its images."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .records import below, printable

IMAGE_ENDS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LOOKED_FOR = {
    'coco': "a JSON file with 'images' and 'annotations'",
    'voc': 'XML files with <annotation>',
    'yolo': 'a txt file of numbers for each image, or data.yaml',
    'labelme': "a JSON file with 'shapes' for each image",
}
_YOLO_LINE = re.compile(rb'\d+(\s+-?[\d.]+(e[+-]?\d+)?){4,}\s*', re.IGNORECASE)
_SPLITS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


@dataclass
class DataFiles:
    """The files of a folder by what they are; all names are below it, sorted.

    Attributes:
        root: The folder.
        images: By their ending.
        stems: Images by their name without folder and ending.
        files: All that is no image, by ending.
        kinds: Annotation files by format.
        broken: JSON files that cannot be read.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    stems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    kinds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)


def scan(root: Path) -> DataFiles:
    """Walk through a folder; links to other folders are followed once."""
    found, seen = DataFiles(root), set()
    for folder, below_it, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            below_it.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below_it[:] = [name for name in below_it if not name.startswith('.')]
        for name in (n for n in names if not n.startswith('.')):
            path = Path(folder, name)
            if not path.is_file():
                continue
            if path.suffix.lower() in IMAGE_ENDS:
                found.images.append(below(root, path))
            else:
                found.files[path.suffix.lower()].append(below(root, path))
    found.images.sort()
    for image in found.images:
        found.stems[Path(image).stem].append(image)
    for listed in found.files.values():
        listed.sort()
    _sort_by_format(found)
    return found


def _sort_by_format(found: DataFiles) -> None:
    for name in found.files['.json']:
        kind = _json_kind(found.root / name)
        if kind == 'broken':
            found.broken.append(name)
        elif kind is not None:
            found.kinds[kind].append(name)
    xmls = found.files['.xml']
    if any(_starts_like_voc(found.root / name) for name in xmls):
        found.kinds['voc'] = xmls
    texts = [n for n in found.files['.txt'] if _is_yolo(found, n)]
    if texts:
        found.kinds['yolo'] = texts


def _json_kind(path: Path) -> str | None:
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return 'broken'
    if not isinstance(content, dict):
        return None
    if all(isinstance(content.get(key), list) for key in ('images', 'annotations')):
        return 'coco'
    return 'labelme' if isinstance(content.get('shapes'), list) else None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError, ValueError, RecursionError: If that cannot be done.
    """
    return json.loads(path.read_bytes())


def _starts_like_voc(path: Path) -> bool:
    with path.open('rb') as file:
        return b'<annotation' in file.read(4096).replace(b'\0', b'')


def _is_yolo(found: DataFiles, name: str) -> bool:
    if Path(name).stem not in found.stems:
        return False
    with (found.root / name).open('rb') as file:
        return _YOLO_LINE.fullmatch(file.readline(4096)) is not None


def recognise(found: DataFiles, wanted: str | None) -> str:
    """Return the format of a folder.

    Args:
        found: Its files.
        wanted: What the user calls it, where it holds several.

    Raises:
        UserError: If there is none, several, or not the one wanted.
    """
    kinds = {kind: names for kind, names in found.kinds.items() if names}
    if wanted is not None and wanted in kinds:
        return wanted
    seen = '; '.join(
        f'{kind}: {len(names)} files such as {printable(names[0])}'
        for kind, names in kinds.items()
    )
    if wanted is not None:
        raise UserError(
            f"--format {wanted}: '{found.root}' holds no {LOOKED_FOR[wanted]}"
            + (f' (found {seen})' if seen else f'. It holds {_contents(found)}')
        )
    if not kinds:
        looked = '; '.join(f'{kind}: {what}' for kind, what in LOOKED_FOR.items())
        raise UserError(
            f"'{found.root}' holds no annotations. Looked for {looked}. "
            f'It holds {_contents(found)}'
        )
    if len(kinds) > 1:
        raise UserError(
            f"'{found.root}' holds annotations in several formats ({seen}): choose one "
            f'with --format {" or ".join(kinds)}'
        )
    return next(iter(kinds))


def _contents(found: DataFiles) -> str:
    counts = Counter(
        {end or 'no ending': len(names) for end, names in found.files.items() if names}
    )
    parts = [f'{len(found.images)} images']
    parts += [f'{count} files {end}' for end, count in counts.most_common(8)]
    if found.broken:
        parts.append(f'{len(found.broken)} JSON files that cannot be read, such as '
                     f'{printable(found.broken[0])}')  # fmt: skip
    return ', '.join(parts) if found.images or counts else 'nothing at all'


def split_of(name: str, whole: bool = False) -> str | None:
    """Tell from a path which split it belongs to.

    Args:
        name: Of a file, below the data set's folder.
        whole: Whether the file's own name counts too, not only its folders.
    """
    path = Path(name)
    parts = [path.stem, *reversed(path.parent.parts)] if whole else path.parent.parts
    for part in parts:
        words = re.findall('[a-z]+', part.lower())
        splits = {_SPLITS[word] for word in words if word in _SPLITS}
        if len(splits) == 1:
            return splits.pop()
    return None
