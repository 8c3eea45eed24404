"""The sha256 of files, computed once per state of a file and process."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

# Large, as the hashing thread may have to wait for Python's lock after every block.
_BLOCK = 1 << 24
# By device, inode, size and time of change: a renamed file is still known.
_known: dict[tuple[int, int, int, int], str] = {}


def sha256_of(path: Path) -> str:
    """Hash a file, or repeat what it was if the file has not changed since."""
    with path.open('rb') as file:
        status = os.fstat(file.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state not in _known:
            digest = hashlib.sha256()
            block = memoryview(bytearray(_BLOCK))
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
