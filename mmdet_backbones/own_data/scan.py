"""What files a folder holds, and in which format they annotate its images."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, printable
from .records import below, some
from .values import composed

IMAGE_ENDS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_OTHER_IMAGES = ('.gif', '.heic', '.heif', '.avif', '.jp2', '.jxl', '.psd', '.svg')
_READ = (*IMAGE_ENDS, '.json', '.xml', '.txt', '.yaml', '.yml')
# What is of one image; a list of images; a file for a whole data set.
MOST_TEXT, MOST_LIST, _MOST_JSON = 8 << 20, 1 << 30, 4 << 30
_DEEPEST, _LIKE_A_FILE = 100, 'folder named like a file'
_OF_THE_SYSTEM = {('/', 'proc'), ('/', 'sys'), ('/', 'dev')}
LOOKED_FOR = {
    'coco': "a JSON file with 'images' and 'annotations'",
    'voc': 'XML files with <annotation>',
    'yolo': 'a txt file of numbers for each image, or data.yaml',
    'labelme': "a JSON file with 'shapes' for each image",
}
_YOLO_LINE = re.compile(
    rb'-?\d+(\.\d*)?(\s+-?[\d.]+(e[+-]?\d+)?){4,}\s*', re.IGNORECASE
)
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
        spelled: The same, whichever way the name's accents are written.
        files: All that is no image, by ending.
        kinds: Annotation files by format.
        broken: JSON files that cannot be read, and why.
        odd: What is kept out because it is no file, or of no kind that is read.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    stems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    kinds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    broken: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def of_stem(self, stem: str) -> list[str]:
        """Return the images of a name without folder and ending."""
        return self.stems.get(stem) or self.spelled.get(composed(stem)) or []


def scan(root: Path, out: Path) -> DataFiles:
    """Walk through a folder; links to other folders are followed once.

    Args:
        root: The folder, without links.
        out: Where the data set goes, without links; nothing of it is read.
    """
    found, seen, folders = DataFiles(root), {str(root)}, [root]
    while folders:
        folder = folders.pop()
        try:
            names = sorted(n for n in os.listdir(folder) if not n.startswith('.'))
        except OSError as error:
            why = f'folder that cannot be read: {error.strerror}'
            found.odd[below(root, folder)] = why
            continue
        for path in (folder / name for name in names):
            if not os.path.isdir(path):
                _add(found, path, out)
                continue
            real = os.path.realpath(path)
            odd = _odd_folder(path, root, Path(real))
            if odd:
                found.odd[below(root, path)] = odd
            if real not in seen and not Path(real).is_relative_to(out):
                seen.add(real)
                if odd in ('', _LIKE_A_FILE):
                    folders.append(path)
    found.images.sort()
    for image in found.images:
        stem = Path(image).stem
        found.stems[stem].append(image)
        found.spelled[composed(stem)].append(image)
    for listed in found.files.values():
        listed.sort()
    _sort_by_format(found)
    return found


def _odd_folder(path: Path, root: Path, real: Path) -> str:
    """Return what is wrong with a folder; nothing if nothing is."""
    if root.is_relative_to(real):
        return 'a link to a folder that this one lies in' if real != root else ''
    if real.parts[:2] in _OF_THE_SYSTEM:
        return 'a link into the system'
    if len(path.parts) - len(root.parts) > _DEEPEST:
        return f'folder more than {_DEEPEST} folders deep'
    return _LIKE_A_FILE if path.suffix.lower() in _READ else ''


def _add(found: DataFiles, path: Path, out: Path) -> None:
    name, end = below(found.root, path), path.suffix.lower()
    odd = _oddity(path, out)
    if odd:
        found.odd[name] = odd
    elif end in IMAGE_ENDS:
        found.images.append(name)
    else:
        found.files[end].append(name)


def _oddity(path: Path, out: Path) -> str:
    """Return why something is not even opened; nothing if it is."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f'no file: {error.strerror}'
    kinds = {stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket'}
    if not stat.S_ISREG(mode):
        return f'no file: {kinds.get(stat.S_IFMT(mode), "a device")}'
    if path.is_symlink() and path.resolve().is_relative_to(out):
        return 'a link into the folder that is written to'
    if path.suffix.lower() in _OTHER_IMAGES:
        return 'image of a format that is not read: save it as PNG'
    return ''


def _sort_by_format(found: DataFiles) -> None:
    for name in found.files['.json']:
        try:
            kind = _json_kind(read_json(found.root / name))
        except (OSError, ValueError) as error:
            found.broken[name] = f'damaged JSON: {error}'
            continue
        if kind is not None:
            found.kinds[kind].append(name)
    xmls = found.files['.xml']
    if any(_starts_like_voc(found.root / name) for name in xmls):
        found.kinds['voc'] = xmls
    texts = [n for n in found.files['.txt'] if _is_yolo(found, n)]
    if texts:
        found.kinds['yolo'] = texts


def _json_kind(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    if all(isinstance(content.get(key), list) for key in ('images', 'annotations')):
        return 'coco'
    return 'labelme' if isinstance(content.get('shapes'), list) else None


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """Read a file of a size that can be.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is larger, or a pipe, which one would wait for.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError('no file')
    size = status.st_size
    if size > most:
        raise ValueError(f'{size >> 20} MiB, where {most >> 20} are the most')
    with path.open('rb') as file:
        # What the system makes up while it is read has the size 0, and may not end.
        return file.read(size)


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Read a file of text, in UTF-8 or with a mark of another Unicode.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else.
    """
    content = read_bytes(path, most)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode('utf-16' if wide else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError('not UTF-8: save it as UTF-8') from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or says two things under one name.
    """
    content = read_bytes(path, _MOST_JSON)
    if not content:
        raise ValueError('an empty file')
    if not content[:64].strip(b'\0 \t\r\n'):
        raise ValueError('it begins with nothing')
    try:
        return json.loads(content, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError('nested too deep') from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(n for n, k in Counter(name for name, _ in pairs).items() if k > 1)
        raise ValueError(f"'{twice[:80]}' stands twice in one place")
    return found


def _starts_like_voc(path: Path) -> bool:
    return b'<annotation' in _head(path).replace(b'\0', b'')


def _head(path: Path) -> bytes:
    """Return how a file begins; nothing, if it cannot be read: its reader tells."""
    try:
        with path.open('rb') as file:
            return file.read(min(4096, path.stat().st_size))
    except OSError:
        return b''


def _is_yolo(found: DataFiles, name: str) -> bool:
    if not found.of_stem(Path(name).stem):
        return False
    line, end, _ = (
        _head(found.root / name).removeprefix(codecs.BOM_UTF8).partition(b'\n')
    )
    # The last number of a line that goes on may be cut.
    whole = line if end or len(line) < 4000 else line.rsplit(None, 1)[0]
    return _YOLO_LINE.fullmatch(whole) is not None


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
        name, why = next(iter(found.broken.items()))
        parts.append(f'{len(found.broken)} JSON files that cannot be read, such as '
                     f'{printable(name)} ({printable(why)})')  # fmt: skip
    if found.odd:
        parts.append(
            f'{len(found.odd)} that are not read, such as {some([*found.odd])}'
        )
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
