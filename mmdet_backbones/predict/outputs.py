"""Where the boxes go: what is wrong with it before any work, and who writes there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..environment import missing_extra
from ..errors import UserError
from ..files import ABSENT, FOLDER, already_there, target_problem, what_is
from ..own_data.records import some
from ..own_data.scan import read_json
from .films import Film
from .labels import CLASSES, LABELS, LabelFiles, label_file, odd_names
from .lines import LineFile, partial_of
from .options import PredictOptions
from .painting import film_file, picture_file
from .sources import Sources
from .tables import CocoData, CocoResults, CsvTable, JsonLines, TableFile

_ENDINGS = {'json': ('.jsonl', '.json'), 'csv': ('.csv',), 'coco': ('.json',),
            'parquet': ('.parquet',)}  # fmt: skip
# What is made of many small files in the end.
_ON_RAY = ('json', 'parquet')
FORMATS = (*_ENDINGS, *LABELS)


def output_problems(options: PredictOptions, sources: Sources) -> Iterator[str]:
    """Say why the output cannot be written as it is asked for."""
    out, kind = options.out, options.format
    of_images = kind == 'coco' or kind in LABELS
    if kind not in FORMATS:
        yield f"--format is {', '.join(FORMATS)}, got '{kind}'"
        return
    if of_images and sources.films:
        film = sources.films[0].name
        yield (
            f"--format {kind} is for images, and '{film}' is none: write --format json "
            'or csv for it'
        )
    yield from _ray_problems(options, sources)
    if options.annotations is not None and kind != 'coco':
        yield '--annotations belongs to --format coco: write both'
    elif options.annotations is not None and _same(options.annotations, out):
        yield f"-o '{out}' are the annotations: name another file"
        return
    if kind in LABELS:
        yield from _label_problems(options, sources)
    elif out is not None:
        if (problem := target_problem(out, _ENDINGS[kind], options.force)) is not None:
            yield problem
        elif not options.force and os.path.lexists(partial := partial_of(out)):
            yield (
                f"'{partial}' holds what a run found that was killed: keep it under "
                'another name, or write --force, which begins anew'
            )
    if options.paint is not None:
        yield from _paint_problems(options, sources)


def _ray_problems(options: PredictOptions, sources: Sources) -> Iterator[str]:
    if not options.on_ray:
        if options.format == 'parquet':
            yield (
                '--format parquet is written of what a Ray cluster finds: write --ray '
                'as well, or --format json'
            )
        return
    if options.format not in _ON_RAY:
        yield (
            f'--ray writes --format {" or ".join(_ON_RAY)}, got {options.format}: '
            'write one of them, or leave --ray out'
        )
    elif options.out is None:
        yield (
            '--ray needs a file for the boxes: write -o found'
            f'{_ENDINGS[options.format][0]}'
        )
    missing = missing_extra('--format parquet', 'search', 'pyarrow')
    if options.format == 'parquet' and missing:
        yield missing
    if sources.films:
        film = sources.films[0].name
        yield f"--ray is for images, and '{film}' is none: leave it out"
    if options.paint is not None:
        yield '--ray paints nothing: leave out --paint, or --ray'
    if options.device not in (None, 'cpu', 'cuda'):
        yield (
            f'--ray gives every worker its GPU, got --device {options.device}: write '
            '--device cuda, or leave it out'
        )


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(one) == os.path.realpath(other)


def _label_problems(options: PredictOptions, sources: Sources) -> Iterator[str]:
    folder, kind = options.out, options.format
    if folder is None:
        yield f'--format {kind} writes a file for each image: name a folder, -o FOLDER'
        return
    yield from _folder_problems(folder, '-o')
    names = [sources.name(image) for image in sources.images]
    files = {name: label_file(folder, name, kind) for name in names}
    yield from _collisions(files)
    targets = [*files.values()]
    if kind == 'yolo':
        targets.append(folder / CLASSES)
    yield from _in_the_way(targets, options.force, '-o')


def _paint_problems(options: PredictOptions, sources: Sources) -> Iterator[str]:
    folder = options.paint
    assert folder is not None
    yield from _folder_problems(folder, '--paint')
    files = {
        name: picture_file(folder, name) for name in map(sources.name, sources.images)
    }
    films = {film.name: film_file(folder, film) for film in sources.films}
    yield from _collisions(files | films)
    here = {os.path.realpath(image) for image in sources.images}
    here |= {os.path.realpath(film.address) for film in sources.films}
    targets = [*files.values(), *films.values()]
    over = [str(path) for path in targets if os.path.realpath(path) in here]
    if over:
        yield (
            f'--paint would write over what it paints, {some(over, 3)}: name another '
            'folder'
        )
        return
    yield from _in_the_way(targets, options.force, '--paint')


def _folder_problems(folder: Path, option: str) -> Iterator[str]:
    found = what_is(folder)
    if found not in (FOLDER, ABSENT):
        yield f"{option} '{folder}' is {found}: name a folder"


def _collisions(files: dict[str, Path]) -> Iterator[str]:
    """Two images of one name and two endings would share a file."""
    taken: dict[Path, str] = {}
    for name, path in files.items():
        other = taken.setdefault(path, name)
        if other != name:
            yield (
                f"'{other}' and '{name}' would both be written to '{path}': rename "
                'one, or predict them one by one'
            )
            return


def _in_the_way(targets: Sequence[Path], force: bool, option: str) -> Iterator[str]:
    there = [path for path in targets if os.path.lexists(path)]
    folders = [str(path) for path in there if path.is_dir()]
    if folders:
        yield f'{option}: {some(folders, 3)} stands where a file has to'
    elif len(there) > 3 and not force:
        yield (
            f"'{there[0]}' and {len(there) - 1} more are there already: write --force, "
            f'or another {option}'
        )
    elif (problem := already_there(there, force, option)) is not None:
        yield problem


def open_table(
    options: PredictOptions,
    sources: Sources,
    names: tuple[str, ...],
    wanted: Sequence[str],
    write: Callable[[str], Any] | None,
    tell: Callable[[str], Any],
) -> Any:
    """Make what writes the boxes.

    Args:
        options: What is wanted, without problems.
        sources: The images.
        names: Of all classes of the detector.
        wanted: Of those that are looked for.
        write: Takes lines where no file is named.
        tell: Gets what a user should know.

    Returns:
        It, with ``add``, ``close`` and ``leave``; None if nothing is to be written.

    Raises:
        UserError: If the classes or images have no place in it.
    """
    out, kind = options.out, options.format
    if kind in LABELS:
        if (problem := odd_names(names)) is not None:
            raise UserError(f'--format {kind}: {problem}: write --format json')
        assert out is not None
        return LabelFiles(out, kind, names)
    ids = None
    if options.annotations is not None:
        ids = coco_ids(options.annotations, sources, wanted, tell)

    def make(write: Callable[[str], Any]) -> Any:
        if ids is not None:
            return CocoResults(write, *ids)
        if kind == 'coco':
            return CocoData(write, names)
        return JsonLines(write) if kind == 'json' else CsvTable(write)

    if out is not None:
        file = LineFile(out)
        return TableFile(file, make(file.write))
    return None if write is None else Printed(make(write))


class Printed:
    """A table that is printed.

    Args:
        table: It.
    """

    left = None

    def __init__(self, table: Any) -> None:
        self._table = table
        self.add = table.add

    def close(self) -> list[Path]:
        """Print what stands below; there is no file."""
        self._table.end()
        return []

    def leave(self) -> None:
        """What is printed is printed."""


def coco_ids(
    path: Path, sources: Sources, wanted: Sequence[str], tell: Callable[[str], Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read which ids a data set gives to images and classes.

    Args:
        path: Of annotations in COCO's format.
        sources: The images.
        wanted: Classes that are looked for.
        tell: Gets a note about images that nobody looks at.

    Returns:
        Ids of the images by name, and of the classes by name.

    Raises:
        UserError: If an image or a class has none.
    """
    try:
        content = read_json(path)
        categories = {entry['name']: entry['id'] for entry in content['categories']}
        images = {entry['file_name']: entry['id'] for entry in content['images']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--annotations '{path}' cannot be read as COCO's: "
            f'{type(error).__name__}: {error}'
        ) from error
    ends: dict[str, list[Any]] = {}
    for name, number in images.items():
        ends.setdefault(PurePosixPath(str(name)).name, []).append(number)
    found, lost = {}, []
    for name in map(sources.name, sources.images):
        same = ends.get(PurePosixPath(name).name, [])
        if name in images or len(same) == 1:
            found[name] = images[name] if name in images else same[0]
        else:
            lost.append(name)
    unknown = [name for name in wanted if name not in categories]
    problems = []
    if lost:
        problems.append(f'lists no image of {some(lost, 3)}')
    if unknown:
        known = some([str(name) for name in categories], 10)
        problems.append(
            f'has no class {some(unknown, 3)}, it has {known}: name those that it has '
            'with --classes'
        )
    if problems:
        raise UserError(f"--annotations '{path}' {', and '.join(problems)}")
    missing = len(set(images.values()) - set(found.values()))
    if missing:
        tell(
            f"{missing} of the {len(images)} images of '{path}' are not among those "
            'that are predicted: an AP over all of them counts their objects as missed'
        )
    return found, categories


def film_problem(film: Film) -> str | None:
    """Say why a film cannot be opened; None if it can."""
    try:
        with film.opened():
            return None
    except UserError as error:
        return str(error)
