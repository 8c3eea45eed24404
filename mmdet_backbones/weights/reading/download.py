"""Download a file once into torch's hub cache, going on where it broke off; hash it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log

from ...errors import CheckpointError

_BLOCK = 1 << 20
_SECONDS = 30
_ATTEMPTS = 5
_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.[^-]*$')
_DATE = re.compile(r'(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])')
# Large, as the hashing thread may have to wait for Python's lock after every block.
_HASH_BLOCK = 1 << 24
# By device, inode, size and time of change: a renamed file is still known.
_known: dict[tuple[int, int, int, int], str] = {}


def cache_path(url: str) -> Path:
    """Say where a download is put.

    ``torch.hub.get_dir()/checkpoints`` with the name in the address, as torch.hub
    does it. Names without a hash, such as ``model.safetensors``, are used by many
    nets: these go into a folder of their own for each address.

    Raises:
        CheckpointError: If the address names no file.
    """
    parts = urlparse(url)
    name = unquote(parts.path).rsplit('/', 1)[-1]
    if not name or not parts.hostname or name in ('.', '..'):
        raise CheckpointError(
            f"'{url}' names no file: write an address that ends with the file's "
            'name, such as https://host/folder/net.pth'
        )
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    if expected_digest(name) is None:
        key = hashlib.sha256(url.encode()).hexdigest()[:8]
        folder /= f'{parts.hostname}-{key}'
    return folder / name


def expected_digest(name: str) -> str | None:
    """Read the start of the sha256 from a name such as ``net-0676ba61.pth``."""
    found = _DIGEST.search(name)
    if found is None or _DATE.fullmatch(found[1]):
        return None
    return found[1]


def fetch(url: str) -> Path:
    """Download a file into the cache if it is not there.

    Processes that want the same file wait for the one that downloads it. The part
    that arrived stays beside the target as ``<name>.part`` if the connection
    breaks, and the next call asks the server for the rest only.

    Returns:
        Where the file is.

    Raises:
        CheckpointError: If it cannot be had, or is not the file its name says.
    """
    from filelock import FileLock

    path = cache_path(url)
    if path.is_file():
        return path
    part = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f'.{path.name}.lock')):
            if not path.is_file():
                _complete(url, part)
                check_digest(part, sha256_of(part), expected_digest(path.name), url)
                part.replace(path)
    except (OSError, HTTPException) as error:
        raise CheckpointError(_failure(url, path, part, error)) from error
    return path


def state_of(file: BinaryIO) -> tuple[int, int, int, int]:
    """Tell an open file from all others, and from itself after a change."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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
    path.unlink(missing_ok=True)
    raise CheckpointError(
        f"The download of '{source}' is damaged or is another file: its name "
        f'promises a sha256 that starts with {expected}, the file has {found}. It was '
        'removed; start again, or download it by hand and write its path as checkpoint'
    )


def probe(url: str) -> None:
    """Ask for one byte of a file.

    Raises:
        CheckpointError: If the server does not answer or does not have it.
    """
    request = Request(url, headers={**_headers(), 'Range': 'bytes=0-0'})
    try:
        with urlopen(request, timeout=_SECONDS) as response:
            _refuse_web_page(url, response)
    except (OSError, HTTPException) as error:
        path = cache_path(url)
        raise CheckpointError(_failure(url, path, path, error)) from error


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


def _complete(url: str, part: Path) -> None:
    reached = -1
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _transfer(url, part)
        except HTTPError:
            raise
        except (OSError, HTTPException):
            size = _size(part)
            # Without progress another attempt will not help either.
            if size <= max(reached, 0) or attempt == _ATTEMPTS:
                raise
            reached = size


def _transfer(url: str, part: Path) -> None:
    have = _size(part)
    headers = _headers() | ({'Range': f'bytes={have}-'} if have else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=_SECONDS) as response:
            _refuse_web_page(url, response)
            start, total = _extent(response)
            if start in (0, have) and not _newer(response, part, start):
                return _write(response, part, start, total)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get('Content-Range') == f'bytes */{have}':
            return None
    # What is here does not fit what the server has.
    part.unlink()
    return _transfer(url, part)


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Read at which byte the answer starts, and the size of the whole file."""
    found = re.match(
        r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range') or ''
    )
    if response.status == 206 and found:
        return int(found[1]), None if found[2] == '*' else int(found[2])
    length = response.headers.get('Content-Length')
    return 0, int(length) if length else None


def _newer(response: HTTPResponse, part: Path, start: int) -> bool:
    """Whether the server's file was replaced after our part of it was written."""
    changed = response.headers.get('Last-Modified')
    if not start or not changed:
        return False
    try:
        return parsedate_to_datetime(changed).timestamp() > part.stat().st_mtime
    except ValueError:
        return True


def _write(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    with _progress(part, start, total) as advance, part.open('ab') as file:
        file.truncate(start)
        while block := response.read(_BLOCK):
            file.write(block)
            advance(len(block))
    size = _size(part)
    if total is not None and size != total:
        raise ConnectionError(f'the connection broke after {size} of {total} bytes')


@contextmanager
def _progress(part: Path, start: int, total: int | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name = part.name.removesuffix('.part')
    size = f'{total / 1e6:.1f} MB' if total else 'unknown size'
    rest = f', of which {start / 1e6:.1f} MB are here' if start else ''
    print_log(
        f'Downloading {name} ({size}{rest}) to {part.parent}', 'current', logging.INFO
    )
    columns = (
        TextColumn('{task.description}'), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


def _refuse_web_page(url: str, response: HTTPResponse) -> None:
    if response.headers.get_content_type() == 'text/html':
        raise CheckpointError(
            f"'{url}' answers with a web page, not with a file: it may want a login, "
            'or is the page about the file. Write the address of the file itself '
            '(on GitHub and Hugging Face the one behind the download button)'
        )


def _headers() -> dict[str, str]:
    return {'User-Agent': 'mmdet_backbones', 'Accept-Encoding': 'identity'}


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _failure(url: str, path: Path, part: Path, error: Exception) -> str:
    text = f"'{url}' cannot be downloaded ({error}). "
    if _size(part) and part != path:
        text += (
            f'{_size(part) / 1e6:.1f} MB have arrived and are kept: start again and '
            'only the rest is asked for. '
        )
    return text + f'Or download it elsewhere and put it at {path}'
