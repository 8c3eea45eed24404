"""Download a file once into torch's hub cache, going on where it broke off; hash it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlparse

import torch
from mmengine.dist import barrier, get_dist_info

from ...errors import CheckpointError, printable
from .held import State, state_of
from .transfer import complete, probe, size_of

_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.[^-]*$')
_DATE = re.compile(r'(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])')
# Large, as the hashing thread may have to wait for Python's lock after every block.
_HASH_BLOCK = 1 << 24
# A part, its note and its lock have longer names, and 255 bytes are the most.
_LONGEST_NAME = 200
# By device, inode, size and time of change: a renamed file is still known.
_known: dict[State, str] = {}


class NotThereError(CheckpointError):
    """The server answers, and has no such file."""


def torch_path(url: str) -> Path:
    """Say where torch.hub and mmengine put a download: all of one name at one place.

    Raises:
        CheckpointError: If the address names no file.
    """
    name = _file_name(url)
    return Path(torch.hub.get_dir()).absolute() / 'checkpoints' / name


def _file_name(url: str) -> str:
    try:
        parts = urlparse(url)
        named = parts.hostname and parts.port != 0
    except ValueError as error:
        raise CheckpointError(f"'{url}' cannot be downloaded: {error}") from error
    name = unquote(parts.path).rsplit('/', 1)[-1]
    if not name or not named or name in ('.', '..'):
        raise CheckpointError(
            f"'{url}' names no file: write an address that ends with the file's "
            'name, such as https://host/folder/net.pth'
        )
    size = max(len(os.fsencode(part)) for part in (name, parts.hostname or ''))
    if not name.isprintable() or '\\' in name or size > _LONGEST_NAME:
        what = f'has {size} bytes' if size > _LONGEST_NAME else 'has such characters'
        raise CheckpointError(
            f"'{printable(url, 300)}' is not downloaded: no file can be put under its "
            f'name or that of its server, which {what}. Download it by '
            'hand and write its path as checkpoint'
        )
    return name


def cache_path(url: str) -> Path:
    """Say where a download is put, or may be put by hand.

    As torch.hub does it. But names without a hash, such as ``model.safetensors``, are
    used by many nets: these go into a folder of their own for each address.

    Raises:
        CheckpointError: If the address names no file.
    """
    path = torch_path(url)
    if expected_digest(path.name) is not None:
        return path
    key = hashlib.sha256(url.encode()).hexdigest()[:8]
    return path.parent / f'{urlparse(url).hostname}-{key}' / path.name


def expected_digest(name: str) -> str | None:
    """Read the start of the sha256 from a name such as ``net-0676ba61.pth``."""
    found = _DIGEST.search(name)
    if found is None or _DATE.fullmatch(found[1]):
        return None
    return found[1]


def fetch(url: str, path: Path) -> Path:
    """Download a file if it is not there.

    Processes that want the same file wait for the one that downloads it. The part
    that arrived stays beside the target as ``<name>.part`` if the connection
    breaks, and the next call asks the server for the rest only.

    Args:
        url: Its address.
        path: Where it is put.

    Returns:
        The path.

    Raises:
        CheckpointError: If it cannot be had, or is not the file its name says.
    """
    from filelock import FileLock

    part, digest = _part_of(path), expected_digest(path.name)
    with _explained(url, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f'.{path.name}.lock')):
            if not path.is_file():
                complete(url, part, has_digest=digest is not None)
                check_digest(part, sha256_of(part), digest, url)
                part.replace(path)
    return path


def sha256_of(path: Path) -> str:
    """Hash a file, or repeat what it was if the file has not changed since."""
    with path.open('rb') as file:
        state = state_of(file)
        if state not in _known:
            digest = hashlib.sha256()
            block = memoryview(bytearray(_HASH_BLOCK))
            while size := file.readinto(block):
                digest.update(block[:size])
            _known[state] = digest.hexdigest()
    return _known[state]


def hash_beside(path: Path) -> Future[str]:
    """Hash a file in a thread, as hashlib works without Python's lock."""
    pool = ThreadPoolExecutor(1, thread_name_prefix='sha256')
    future = pool.submit(sha256_of, path)
    pool.shutdown(wait=False)
    return future


def check_digest(path: Path, found: str, expected: str | None, source: str) -> None:
    """Remove a downloaded file that is not the one its name says.

    Args:
        path: Of the file.
        found: Its sha256.
        expected: What that must start with, None for any.
        source: Of the file, for the message.

    Raises:
        CheckpointError: If it does not.
    """
    if expected is None or found.startswith(expected):
        return
    raise CheckpointError(
        f"The download of '{source}' is damaged or is another file: its name "
        f'promises a sha256 that starts with {expected}, the file has {found}. '
        f'{discard(path)}, or download it by hand and write its path as checkpoint'
    )


def discard(path: Path) -> str:
    """Remove a bad download, so that the next attempt starts afresh.

    Returns:
        What was done and is to be done.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return f'It cannot be removed from here: remove {path}, start again'
    return 'It was removed; start again'


def ask_for(url: str, path: Path) -> None:
    """Ask the server whether it has a file that would be put at a path.

    Raises:
        CheckpointError: If it does not answer or does not have it.
    """
    with _explained(url, path):
        probe(url)


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Let rank 0 go through a block while the others wait; then they follow.

    Every rank must come here. If rank 0 fails the others try for themselves, so
    that none is left waiting.
    """
    rank, ranks = get_dist_info()
    if rank > 0:
        barrier()
    try:
        yield
    finally:
        if rank == 0 and ranks > 1:
            barrier()


def by_hand(path: Path) -> str:
    """Say what to do where there is no network."""
    return f'Or download it elsewhere and put it at {path}'


@contextmanager
def _explained(url: str, path: Path) -> Iterator[None]:
    """Say of every failure where the file may be put instead."""
    cure = by_hand(path)
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{error}. {cure}') from error
    # A proxy or a port may be written in a way that is none.
    except (OSError, HTTPException, ValueError) as error:
        missing = isinstance(error, HTTPError) and error.code == 404
        kind = NotThereError if missing else CheckpointError
        kept = ''
        if size := size_of(_part_of(path)):
            kept = (
                f'{size / 1e6:.1f} MB have arrived and are kept: start again and only '
                'the rest is asked for. '
            )
        reason = printable(' '.join(str(error).split()), 300)
        raise kind(f"'{url}' cannot be downloaded ({reason}). {kept}{cure}") from error


def _part_of(path: Path) -> Path:
    return path.with_name(f'{path.name}.part')
