"""Work folders of trials in a bucket, for machines that share no disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import UserError

#: Of a work folder: says what was trained, and is written after what was.
DONE = 'trained.json'
# The state of a trial, in the order in which it may be copied: nothing that is named
# by a later file is missing.
_NAMED_BY = ('last_checkpoint', DONE)
_EXAMPLE = 's3://bucket/folder'


class Mirror:
    """Copy of the work folder of one trial in a place that every machine reaches.

    Args:
        url: Of all trials, as fsspec takes it: ``'s3://bucket/folder'``, or a path.
        folder: Of the trial on this machine; its name is that of the copy.

    Raises:
        UserError: If no installed package reaches the place.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._system, root = _reach(url)
        self._root = f'{root.rstrip("/")}/{folder.name}'
        self._copied: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Replace the work folder by its copy, if another machine trained further."""
        there = self._read_done()
        if there is None or _iterations(there) <= _iterations(self._own_done()):
            return
        fetched = self.folder.with_name(f'.{self.folder.name}.fetched')
        shutil.rmtree(fetched, ignore_errors=True)
        for name in self._names():
            if '..' in Path(name).parts:
                raise UserError(f"--storage holds '{name}', which leads out of it")
            target = fetched / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(f'{self._root}/{name}', str(target))
        shutil.rmtree(self.folder, ignore_errors=True)
        fetched.rename(self.folder)

    def push(self) -> None:
        """Copy what is new in the work folder, and remove what is gone from it."""
        own = {
            str(path.relative_to(self.folder)): path
            for path in sorted(self.folder.rglob('*'))
            if path.is_file() and not path.name.endswith('.partial')
        }
        for name in sorted(own, key=lambda name: (name in _NAMED_BY, name)):
            state = own[name].stat()
            mark = state.st_mtime_ns, state.st_size
            if self._copied.get(name) == mark:
                continue
            target = f'{self._root}/{name}'
            self._system.makedirs(target.rpartition('/')[0], exist_ok=True)
            self._system.put_file(str(own[name]), target)
            self._copied[name] = mark
        for name in set(self._names()) - set(own):
            self._system.rm_file(f'{self._root}/{name}')

    def _names(self) -> list[str]:
        self._system.invalidate_cache()
        start = len(self._root) + 1
        return [path[start:] for path in self._system.find(self._root)]

    def _read_done(self) -> Any:
        self._system.invalidate_cache()
        path = f'{self._root}/{DONE}'
        if not self._system.exists(path):
            return None
        return json.loads(self._system.cat_file(path))

    def _own_done(self) -> Any:
        path = self.folder / DONE
        return json.loads(path.read_text('utf-8')) if path.is_file() else None


def _iterations(done: Any) -> int:
    return max((part['to'] for part in done['parts']), default=0) if done else -1


def _reach(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"--storage '{url}' is out of reach ({error}): install what reaches it, or "
            f'write a path or an address such as {_EXAMPLE}'
        ) from error
    return system, root


def storage_problem(url: str) -> str | None:
    """Say why nothing can be kept at an address; None if it can.

    Args:
        url: As for :class:`Mirror`.
    """
    try:
        system, root = _reach(url)
    except UserError as error:
        return str(error)
    try:
        system.makedirs(root, exist_ok=True)
        system.ls(root)
    except Exception as error:  # each kind of storage has its own
        text = f'{type(error).__name__}: {error}'.strip()
        return f"--storage '{url}' cannot be written ({text}): name another place"
    return None
