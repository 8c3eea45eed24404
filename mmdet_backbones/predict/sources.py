"""Where images come from: files, folders, patterns, videos, cameras and streams."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..errors import UserError, shown
from ..files import ABSENT, FILE, FOLDER, path_of, what_is
from ..own_data.scan import IMAGE_ENDS
from .films import Film

VIDEO_ENDS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
_STREAMS = ('rtsp', 'rtsps', 'rtmp', 'http', 'https', 'udp', 'tcp')
_PATTERN = re.compile(r'[*?\[]')


@dataclass(frozen=True)
class Sources:
    """What is to be looked at.

    Attributes:
        images: In the order of the command line.
        films: Videos, cameras and streams.
        root: The folder that all images lie in.
    """

    images: tuple[Path, ...]
    films: tuple[Film, ...]
    root: Path

    def name(self, image: Path) -> str:
        """Name an image below the root, with forward slashes."""
        return Path(os.path.abspath(image)).relative_to(self.root).as_posix()


def find_sources(given: Sequence[str], without: Path | None = None) -> Sources:
    """Find the images and videos that a user means.

    Args:
        given: Files, folders (with what lies below them), patterns such as
            ``'photos/*.jpg'``, numbers of cameras, addresses of streams.
        without: Folder inside them that is not looked into.

    Raises:
        UserError: Says of each that means nothing why.
    """
    # Two ways to one image are one; .. would lead out of what is written to.
    images: dict[str, Path] = {}
    films: dict[str, Film] = {}
    folders, problems = [], []
    for text in given:
        try:
            for found in _meant(text, without):
                if isinstance(found, Film):
                    films[found.address] = found
                else:
                    images.setdefault(os.path.abspath(found), found)
                    folder = path_of(text)
                    folders.append(folder if folder.is_dir() else found.parent)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError('\n'.join(problems))
    places = {os.path.abspath(folder) for folder in folders}
    root = Path(os.path.commonpath(places)) if places else Path.cwd()
    return Sources(tuple(images.values()), tuple(films.values()), root)


def _meant(text: str, without: Path | None) -> Iterator[Path | Film]:
    path = path_of(text)
    # Of no text at all the path would be this folder.
    found = what_is(path if text else text)
    scheme, separator, _ = text.partition('://')
    if found == FOLDER:
        yield from _in_folder(path, text, without)
    elif found == FILE:
        yield _of_file(path)
    elif separator:
        if scheme.lower() not in _STREAMS:
            raise UserError(
                f'a stream begins with {", ".join(f"{s}://" for s in _STREAMS)}, got '
                f"'{text}'"
            )
        yield Film(text, shown(text), live=True)
    elif text.isdecimal() and text.isascii():
        yield Film(text, f'camera {int(text)}', live=True, camera=int(text))
    elif found == ABSENT and _PATTERN.search(text):
        yield from _matching(text)
    elif found == ABSENT:
        raise UserError(f"there is no image, video or folder '{text}'{_near(path)}")
    else:
        raise UserError(f"'{text}' is {found}, and no image, video or folder")


def _of_file(path: Path) -> Path | Film:
    if path.suffix.lower() in VIDEO_ENDS:
        return Film(str(path), str(path))
    return path


def _in_folder(folder: Path, text: str, without: Path | None) -> Iterator[Path]:
    count, others, videos = 0, 0, 0
    for path in _walk(folder, without):
        if path.suffix.lower() in IMAGE_ENDS:
            count += 1
            yield path
        others += 1
        videos += path.suffix.lower() in VIDEO_ENDS
    if not count:
        what = f'{others} other files' if others else 'nothing at all'
        hint = f", {videos} of them videos: name these, '{folder}/*'" if videos else ''
        raise UserError(
            f"the folder '{text}' holds no image ({', '.join(IMAGE_ENDS)}): it holds "
            f'{what}{hint}'
        )


def _walk(folder: Path, without: Path | None) -> Iterator[Path]:
    """Yield the files below a folder, sorted; hidden ones are somebody's own."""
    left_out = None if without is None else os.path.realpath(without)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders
            if not name.startswith('.')
            and os.path.realpath(os.path.join(place, name)) != left_out
        )  # fmt: skip
        for name in sorted(names):
            if not name.startswith('.'):
                yield Path(place, name)


def _matching(text: str) -> Iterator[Path | Film]:
    files = sorted(glob.glob(str(path_of(text)), recursive=True))
    known = (*IMAGE_ENDS, *VIDEO_ENDS)
    good = [Path(f) for f in files if Path(f).suffix.lower() in known]
    if not good:
        what = f'{len(files)} other files, such as {files[0]!r}' if files else 'nothing'
        raise UserError(f"the pattern '{text}' matches no image or video: {what}")
    yield from (_of_file(path) for path in good)


def _near(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f": there is no folder '{path.parent}'"
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f'; nearest: {", ".join(str(path.parent / name) for name in near)}' * bool(
        near
    )
