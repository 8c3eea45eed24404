"""Recognise the format of a weights file from its content, and read it as data."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.utils import digit_version

from ...compat.checkpoints import mmengine_classes
from ...errors import CheckpointError, DamagedFileError
from .held import Held, State
from .pickle_machine import more_than_weights
from .vetting import vet

# torch.save before torch 1.6 starts with this number, after a few bytes of pickle.
_LEGACY = bytes.fromhex('8a0a6cfc9c46f9206aa850192e')
_HEAD = 512
# Of about 70,000 tensors.
_LONGEST_HEADER = 5_000_000
# The pickles of a file of torch before 1.6 stand before its numbers.
_LONGEST_PICKLES = 1 << 25
_PICKLES = 5
_BLOCK = 1 << 20
# Files whose check sums were found in order.
_sound: set[State] = set()

# First bytes of files that people mistake for weights, and what to do.
_FOREIGN = (
    (b'version https://git-lfs', 'a pointer of Git LFS, not the file itself: run '
     "'git lfs pull' where it was cloned, or download the file"),
    (b'\x1f\x8b', "compressed with gzip: unpack it with 'gunzip'"),
    (b'BZh', "compressed with bzip2: unpack it with 'bunzip2'"),
    (b'\xfd7zXZ', "compressed with xz: unpack it with 'unxz'"),
    (b'7z\xbc\xaf', 'a 7z archive: unpack it'),
    (b'\x89HDF', 'an HDF5 file (Keras): load it with its own library and save the '
     'tensors with torch.save(state_dict, path)'),
    (b'\x93NUMPY', 'a single array of numpy, without names: save all tensors by name '
     'with torch.save(state_dict, path)'),
    (b'GGUF', 'a GGUF file of a language model'),
)  # fmt: skip

# In torch's messages: the class that weights_only refused, and what is no reason.
_REFUSED = re.compile(
    r"GLOBAL (\S+) (?:was not an allowed|whose module)|but got <class '([^']+)'>"
)
_ADVICE = (
    'Weights only load failed', 'Please file an issue', 'Check the documentation',
)  # fmt: skip


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        data: As it was saved.
        metadata: Text beside the tensors, where the format has a place for it.
    """

    data: Any
    metadata: dict[str, Any]


class Format(NamedTuple):
    """How one kind of file is read.

    Attributes:
        read: Takes path, source and the device.
        shapes: Takes path and source, reads names and shapes only. None if these
            are had by ``read``.
    """

    read: Callable[[Path, str, str], Content]
    shapes: Callable[[Path, str], dict[str, tuple[int, ...]]] | None = None


def recognise(file: Held, source: str) -> Format:
    """Tell the format of a file by its content; its suffix says nothing.

    Raises:
        CheckpointError: If the file is empty or of no format that holds weights, or
            would grow far beyond its size when it is read.
    """
    with file.path.open('rb') as opened:
        head = opened.read(_HEAD)
    if head[:2] == b'PK':
        _check_archive(file, source)
        return _ZIP
    if page := _page(head):
        raise DamagedFileError(f"'{source}' {page}")
    if head[8:9] == b'{' or (head and file.name.endswith('.safetensors')):
        _check_header(file, source)
        return _SAFETENSORS
    if _LEGACY in head[:32]:
        _check_old(file, source)
        return _OLD
    if other := _other_file(head, file.name):
        raise CheckpointError(f"'{source}' {other}")
    raise DamagedFileError(f"'{source}' {_no_file(head)}")


def check_sums(file: Held, source: str) -> None:
    """Compare what a zip archive holds with its own check sums; torch does not.

    An archive that was found in order is not read again in this process.

    Raises:
        CheckpointError: If an entry is not what was written; it is named.
    """
    if file.state in _sound:
        return
    with file.path.open('rb') as opened:
        if opened.read(2) != b'PK':
            return
        try:
            with zipfile.ZipFile(opened) as archive:
                for entry in archive.infolist():
                    # 0 where torch was told to compute none.
                    if entry.CRC:
                        with archive.open(entry) as content:
                            while content.read(_BLOCK):
                                pass
        except OSError:
            raise
        except Exception as error:
            raise DamagedFileError(
                f"'{source}' is damaged ({error}): what it holds is not what was "
                'written. Download it again, or copy it again'
            ) from error
    _sound.add(file.state)


def _page(head: bytes) -> str | None:
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if not text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return None
    return (
        'looks like a web page that was saved under this name: the address wanted a '
        'login or was the page about the file. Download the file itself'
    )


def _other_file(head: bytes, name: str) -> str | None:
    """Say what a file is if it is in order and holds something else."""
    for start, what in _FOREIGN:
        if head.startswith(start):
            return f'is {what}'
    if head[:1] == b'\x80':
        return (
            'is a plain pickle, not made by torch.save, and is not opened: reading it '
            'could run any code. If you trust it (detectron2 and caffe2 publish such '
            'files), load it with pickle.load, turn its arrays into tensors and save '
            'these: torch.save({k: torch.as_tensor(v) for k, v in arrays.items()}, '
            'path)'
        )
    if head[257:262] == b'ustar':
        return (
            'is a tar archive: unpack it; weights of torch before 0.2 have to be '
            'loaded and saved once with torch.save(state_dict, path)'
        )
    if name.endswith('.index.json'):
        return 'is the list of the parts of a checkpoint: write one of the parts'
    return None


def _no_file(head: bytes) -> str:
    if not head:
        return 'is empty: the download or the copy of it failed, get it again'
    if head.isascii() and b'\0' not in head:
        line = head.splitlines()[0][:60].decode()
        return f"is a text file ('{line}'), not a checkpoint"
    return (
        'is no checkpoint, or is damaged: expected a file of torch.save or a '
        '.safetensors file'
    )


def _check_archive(file: Held, source: str) -> None:
    """Refuse zip archives that are not of torch.save by their table of contents."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = archive.infolist()
    except OSError:
        raise
    except Exception as error:
        raise DamagedFileError(
            f"'{source}' is cut off or damaged ({error}): it has {file.size} bytes. "
            'Download it again'
        ) from error
    what = _other_archive([entry.filename for entry in entries])
    if what:
        raise CheckpointError(f"'{source}' is {what}")
    unpacked = sum(entry.file_size for entry in entries)
    # torch.save does not compress: its entries take the space that they declare.
    if unpacked > file.size:
        raise CheckpointError(
            f"'{source}' is not opened: its {file.size} bytes declare {unpacked} bytes "
            'of content, which no weights do. If it was packed again by hand, save it '
            'with torch.save'
        )
    # torch looks for the names of entries without regard to capitals.
    sizes = {entry.filename.lower(): entry.file_size for entry in entries}
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or len(sizes) < len(entries):
        raise CheckpointError(
            f"'{source}' is not opened: its entries are "
            f'{"compressed" if packed else "there twice"}, which torch.save never '
            'writes. If it was packed again by hand, save it with torch.save'
        )
    _check_pickle(file, source, sizes)


def _check_pickle(file: Held, source: str, sizes: Mapping[str, int]) -> None:
    """Look at the pickle that torch will read, before it does."""
    try:
        content = torch._C.PyTorchFileReader(str(file.path)).get_record('data.pkl')
    except OSError:
        raise
    except Exception as error:
        raise _damaged(source, error) from error
    storages = {
        name.rpartition('/data/')[2]: size
        for name, size in sizes.items()
        if '/data/' in name
    }
    vet(content, source, file.size, storages)


def _check_old(file: Held, source: str) -> None:
    """Look at the pickles of a file of torch before 1.6."""
    with file.path.open('rb') as opened:
        vet(opened.read(_LONGEST_PICKLES), source, file.size, None, _PICKLES)


def _other_archive(names: list[str]) -> str | None:
    """Say what an archive is if it is none of torch.save, and what to do."""
    ends = {name.split('/', 1)[-1] for name in names}
    if 'constants.pkl' in ends:
        return (
            'a TorchScript archive, code with weights, and is not opened. If you trust '
            "it: torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if 'data.pkl' in ends:
        return None
    if names and all(name.endswith('.npy') for name in names):
        return (
            'an .npz archive of numpy, which is not read: weights are files of '
            'torch.save or .safetensors files. If its names are those of the net: '
            'torch.save({k: torch.from_numpy(v) for k, v in numpy.load(path).items()}, '
            "'weights.pth')"
        )
    first = ', '.join(names[:3]) or 'nothing'
    return (
        f'a zip archive of other files ({first}): unpack it and write the path of the '
        'weights'
    )


def _check_header(file: Held, source: str) -> None:
    with file.path.open('rb') as opened:
        length = int.from_bytes(opened.read(8), 'little')
    if file.size < 10 or length > file.size - 8:
        raise DamagedFileError(
            f"'{source}' is no safetensors file, or is damaged: it promises a header "
            f'of {length} bytes and has {file.size} in all. Download it again'
        )
    if length > _LONGEST_HEADER:
        raise CheckpointError(
            f"'{source}' is not opened: its header has {length} bytes, and that of no "
            f'weights has more than {_LONGEST_HEADER}'
        )


def _read_safetensors(path: Path, source: str, map_location: str) -> Content:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, 'np') as file:
            metadata = file.metadata() or {}
        return Content(load_file(path, device=map_location), metadata)
    except (SafetensorError, ValueError) as error:
        raise _damaged(source, error) from error


def _shapes_of_safetensors(path: Path, source: str) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, 'np') as file:
            return {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise _damaged(source, error) from error


def _read_torch(path: Path, source: str, map_location: str, mmap: bool) -> Content:
    # torch.load takes a path that ends so for safetensors, whatever it holds.
    opened: AbstractContextManager[Any] = nullcontext(path)
    if path.suffix == '.safetensors':
        opened, mmap = path.open('rb'), False
    try:
        with _known_classes(), opened as file:
            data = torch.load(
                file, map_location=map_location, weights_only=True, mmap=mmap
            )
    except OSError:
        raise
    # A damaged pickle can fail anywhere in the unpickler.
    except Exception as error:
        raise _unreadable(source, error) from error
    meta = data.get('meta') if isinstance(data, Mapping) else None
    return Content(data, dict(meta) if isinstance(meta, Mapping) else {})


def _read_zip(path: Path, source: str, map_location: str) -> Content:
    return _read_torch(path, source, map_location, mmap=True)


def _read_old(path: Path, source: str, map_location: str) -> Content:
    return _read_torch(path, source, map_location, mmap=False)


def _known_classes() -> AbstractContextManager[Any]:
    if digit_version(torch.__version__) < digit_version('2.6'):
        return nullcontext()
    arrays = [type(np.dtype(code)) for code in np.typecodes['AllInteger'] + 'efd?']
    # The arguments of a training script; MAE, DeiT and DINO store them as Namespace.
    classes = [*mmengine_classes(), *arrays, argparse.Namespace]
    # On leaving, torch forgets these also where they were known before.
    known = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([c for c in classes if c not in known])


def _unreadable(source: str, error: Exception) -> CheckpointError:
    if 'Unsupported operand' in str(error):
        return CheckpointError(
            f"'{source}' is damaged, or was saved with pickle_protocol=4 or higher, "
            'which torch reads only in a way that could run any code. Where it was '
            'made, save it with torch.save(state_dict, path); else download it again'
        )
    found = _REFUSED.search(str(error))
    if found is None:
        return _damaged(source, error)
    return more_than_weights(source, found[1] or found[2])


def _damaged(source: str, error: Exception) -> DamagedFileError:
    # Around its reason torch explains how to read the file in a way that runs code.
    lines = [line.strip() for line in str(error).splitlines()]
    own = [line for line in lines if line and not line.startswith(_ADVICE)] or ['']
    return DamagedFileError(
        f"'{source}' cannot be read as a checkpoint ({type(error).__name__}: "
        f'{own[0][:200]}) and is not opened. Is the file complete? Download it again'
    )


_ZIP = Format(_read_zip)
_OLD = Format(_read_old)
_SAFETENSORS = Format(_read_safetensors, _shapes_of_safetensors)
