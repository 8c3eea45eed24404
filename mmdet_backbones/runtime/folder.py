"""An exported folder: what it says of itself, and whether its files are those."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import UserError, printable
from ..files import FILE, FOLDER, not_there, path_of, what_is
from .description import MODEL_FILES, problems_in

DESCRIPTION = 'detector.json'
# What a description can be; nothing near it is one.
_LARGEST = 4 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ResizeRule:
    """How an image becomes what the graph takes, as mmdet's test pipeline does it.

    Attributes:
        scale: Height and width in pixels of the rule, not always of the result.
        keep_ratio: Whether the image keeps the ratio of its sides.
        interpolation: Such as ``'bilinear'``.
        pad: Whether every image is padded to ``scale``.
        divisor: Of the sides of what the graph takes, in pixels.
        fixed: Height and width of what the graph takes; None for one that takes any.
    """

    scale: tuple[int, int]
    keep_ratio: bool
    interpolation: str
    pad: bool
    divisor: int
    fixed: tuple[int | None, int | None]


@dataclass(frozen=True)
class ExportedFolder:
    """An exported folder that was read, and whose files were found whole.

    Attributes:
        path: Of the folder.
        format: ``'onnx'``, ``'openvino'``, ``'torch'`` or ``'tensorrt'``.
        precision: Such as ``'fp32'``.
        classes: Names, in the order of the labels.
        batch: Number of images that the graph takes at once; None if any.
        resize: What is done to images before the graph.
        lowest_score: Of what the graph returns.
        description: All that ``detector.json`` says.
    """

    path: Path
    format: str
    precision: str
    classes: tuple[str, ...]
    batch: int | None
    resize: ResizeRule
    lowest_score: float
    description: Mapping[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that hold the net."""
        return tuple(self.path / name for name in MODEL_FILES[self.format])

    def version_of(self, package: str) -> str | None:
        """Return which version of a package wrote the folder, None if unknown."""
        version = self.description['versions'].get(package)
        return version if isinstance(version, str) else None


def is_exported(path: str | Path) -> bool:
    """Whether a path is that of an exported folder, whole or not."""
    return what_is(path_of(path) / DESCRIPTION) == FILE


def read_folder(folder: str | Path) -> ExportedFolder:
    """Read an exported folder, and compare its files with what it says of them.

    Nothing of the net is loaded: sizes and SHA-256 come first.

    Args:
        folder: As ``export`` wrote it, wherever it was copied to.

    Raises:
        UserError: If it is none, or not whole; the message names all that is wrong.
    """
    path = path_of(folder)
    description = _read_description(path)
    problems = problems_in(description)
    if not problems:
        problems = list(_damaged(path, description['files']))
    if problems:
        raise UserError(
            f"the exported folder '{path}' cannot be used:\n"
            + '\n'.join(f'  {problem}' for problem in problems)
            + '\nCopy it again as it was written, or export the detector anew'
        )
    return _folder_of(path, description)


def _folder_of(path: Path, description: dict[str, Any]) -> ExportedFolder:
    given, resize = description['input'], description['resize']
    return ExportedFolder(
        path=path,
        format=description['format'],
        precision=description['precision'],
        classes=tuple(description['classes']),
        batch=given['batch'],
        resize=ResizeRule(
            scale=(resize['height'], resize['width']),
            keep_ratio=resize['keep_ratio'],
            interpolation=resize['interpolation'],
            pad=resize['pad'],
            divisor=resize['size_divisor'] or 1,
            fixed=(given['height'], given['width']),
        ),
        lowest_score=description['thresholds']['score'],
        description=description,
    )


def _read_description(path: Path) -> Any:
    if what_is(path) == FILE and what_is(path.parent / DESCRIPTION) == FILE:
        raise UserError(
            f"'{path}' is a file of an exported folder: name the folder, "
            f"'{path.parent}'"
        )
    problem = not_there(path, 'exported folder', FOLDER)
    if problem is None and (path / DESCRIPTION).is_symlink():
        problem = f"{DESCRIPTION} of '{path}' is a link, which leads out of the folder"
    if problem is None and not_there(path / DESCRIPTION, '') is not None:
        found = what_is(path / DESCRIPTION)
        problem = f"{DESCRIPTION} of the exported folder '{path}' is {found}"
        if not is_exported(path):
            problem += f': name a folder with a {DESCRIPTION}, as an export writes it'
    if problem is not None:
        raise UserError(problem)
    file = path / DESCRIPTION
    if file.stat().st_size > _LARGEST:
        raise UserError(f"'{file}' is too large for what an export writes")
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"'{file}' is damaged, it holds no JSON: {error}. Copy the folder again as "
            'it was written, or export the detector anew'
        ) from error


def _damaged(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entry in files.items():
        problem = _not_inside(folder, name)
        if problem is None:
            problem = _differs(folder / name, entry)
        if problem is not None:
            yield f'{printable(name)} {problem}'


def _not_inside(folder: Path, name: str) -> str | None:
    """Say why a name is not that of a file in the folder, None if it is."""
    if name in ('', '.', '..') or PureWindowsPath(name).name != name or '\0' in name:
        return 'is no plain file name: files lie in the folder itself'
    found = what_is(folder / name)
    if found != FILE:
        return f'is {found}'
    if os.path.realpath(folder / name) != os.path.join(os.path.realpath(folder), name):
        return 'is a link, which leads out of what was exported: copy the file itself'
    return None


def _differs(path: Path, entry: Mapping[str, Any]) -> str | None:
    size = path.stat().st_size
    if size != entry['bytes']:
        return f'has {size} bytes, {entry["bytes"]} were written'
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != entry['sha256']:
        return 'is not what was written: its SHA-256 is another'
    return None
