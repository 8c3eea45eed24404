"""From a detector and sources to boxes in files, one image after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, printable
from ..own_data.records import some
from ..runtime.detections import Detections
from .detector import Detector, chosen
from .films import Film, Reel
from .frames import Frame, read_ahead
from .options import PredictOptions
from .outputs import film_problem, open_table, output_problems
from .painting import Painter
from .sources import Sources, find_sources

Track = Callable[[Iterable[Any], 'int | None', str], Iterable[Any]]
"""Passes so many items through, under a name, and shows how far it is."""


@dataclass
class Summary:
    """What was done.

    Attributes:
        images: Number of images and frames.
        boxes: Number of boxes, by class.
        seconds: From the first image to the last, with reading and writing.
        written: Files and folders.
        problems: What could not be read.
        notes: What a user should know.
        stopped: Whether somebody stopped it before the end.
        timed: Of the images, those that these seconds were spent on; None for all.
    """

    images: int = 0
    boxes: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False
    timed: int | None = None

    @property
    def rate(self) -> float:
        """Images a second."""
        images = self.images if self.timed is None else self.timed
        return images / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return dict(
            images=self.images,
            boxes=sum(self.boxes.values()),
            classes=dict(self.boxes.most_common()),
            seconds=round(self.seconds, 3),
            images_per_second=round(self.rate, 2),
            written=[str(path) for path in self.written],
            problems=self.problems,
            notes=self.notes,
            stopped=self.stopped,
        )


def predict(
    options: PredictOptions,
    track: Track = lambda items, total, name: items,
    write: Callable[[str], Any] | None = None,
    tell: Callable[[str], Any] = lambda text: None,
) -> Summary:
    """Find boxes in all sources, and write them.

    Args:
        options: What is wanted.
        track: Shows progress over images.
        write: Takes the lines where no file is named.
        tell: Gets what is wrong with an image, when it is.

    Raises:
        UserError: If it cannot be done; says all of it, before the detector is
            loaded where that can be.
    """
    sources = checked_sources(options)
    detector = options.load()
    wanted = wanted_labels(detector.names, options.classes)
    summary = Summary()

    def note(text: str) -> None:
        summary.notes.append(text)
        tell(text)

    for text in detector.notes:
        note(text)
    names = [detector.names[label] for label in wanted]
    table = open_table(options, sources, detector.names, names, write, note)
    painter = None if options.paint is None else Painter(options.paint)
    run = Prediction(options, detector, wanted, table, painter, summary, tell)
    run.all(sources, track)
    return summary


def checked_sources(options: PredictOptions) -> Sources:
    """Find the sources.

    Args:
        options: What is wanted.

    Raises:
        UserError: Says everything that is wrong with what is asked for.
    """
    problems = [*options.problems()]
    sources = None
    try:
        # What was painted before is no photograph.
        sources = find_sources(options.sources, options.paint)
        problems += output_problems(options, sources)
        found = map(film_problem, sources.films)
        problems += [problem for problem in found if problem is not None]
    except UserError as error:
        problems.append(str(error))
    if problems or sources is None:
        raise UserError('\n'.join(problems))
    return sources


def wanted_labels(names: tuple[str, ...], given: Sequence[str] | None) -> list[int]:
    """Number the classes that are looked for.

    Args:
        names: Of all classes.
        given: Of those that are looked for; None for all.

    Raises:
        UserError: If there is no class of a name.
    """
    if given is None:
        return [*range(len(names))]
    problems = []
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=3, cutoff=0.4)
            hint = f'nearest: {", ".join(near)}' if near else f'all: {some(names, 20)}'
            problems.append(f"there is no class '{printable(name)}'; {hint}")
    if problems:
        raise UserError(f'--classes: {"; ".join(problems)}')
    return [number for number, name in enumerate(names) if name in given]


@dataclass
class Prediction:
    """One prediction.

    Attributes:
        options: What is wanted.
        detector: It.
        wanted: Numbers of the classes that are looked for.
        table: Takes the boxes, if they are written.
        painter: Paints them, if that is wanted.
        summary: What was done so far.
        tell: Gets what is wrong with an image.
    """

    options: PredictOptions
    detector: Detector
    wanted: list[int]
    table: Any
    painter: Painter | None
    summary: Summary
    tell: Callable[[str], Any]

    def all(self, sources: Sources, track: Track) -> None:
        """Look at everything; what is interrupted is complete as far as it went."""
        start = time.perf_counter()
        try:
            try:
                self._images(sources, track)
                for film in sources.films:
                    self._film(film, track)
            except KeyboardInterrupt:
                self.summary.stopped = True
            self.summary.seconds = time.perf_counter() - start
            if self.painter is not None:
                self.painter.end_film()
            if self.table is not None:
                self.summary.written += self.table.close()
        except BaseException as error:
            self._leave()
            left = None if self.table is None else self.table.left
            if isinstance(error, UserError) and left and self.summary.images:
                raise UserError(
                    f"{error}\nwhat was found before that is in '{left}'"
                ) from error
            raise
        if self.painter is not None and self.summary.images:
            self.summary.written.append(self.options.paint)  # type: ignore[arg-type]

    def _leave(self) -> None:
        if self.painter is not None:
            self.painter.leave()
        if self.table is not None:
            self.table.leave()

    def _images(self, sources: Sources, track: Track) -> None:
        def leave(problem: str) -> None:
            self.summary.problems.append(problem)
            self.tell(problem)

        frames = read_ahead(sources.images, self.detector.read, sources.name, leave)
        if sources.images:
            self._frames(track(frames, len(sources.images), 'images'), None)

    def _film(self, film: Film, track: Track) -> None:
        with film.opened() as reel:
            frames = (
                Frame(film.name, pixels, None, number, round(number / reel.rate, 3))
                for number, pixels in reel.frames()
            )
            try:
                self._frames(track(frames, reel.count, film.name), reel)
            except KeyboardInterrupt:
                # So ends all that would go on for ever.
                if not film.live:
                    raise
            else:
                if reel.problem is not None:
                    self.summary.problems.append(reel.problem)
                    self.tell(reel.problem)
            if self.painter is not None:
                self.painter.end_film()

    def _frames(self, frames: Iterable[Frame], reel: Reel | None) -> None:
        for group in _groups(frames, self.options.batch):
            found = self._found([frame.pixels for frame in group])
            for frame, boxes in zip(group, found, strict=True):
                self._write(frame, boxes, reel)

    def _found(self, images: list[np.ndarray]) -> list[Detections]:
        batch, tiling = self.options.batch, self.options.tiling

        def find(tiles: Sequence[np.ndarray]) -> list[Detections]:
            return self.detector.predict(tiles, self.options.lowest, batch)

        found = (
            find(images)
            if tiling is None
            else [tiling.predict(image, find) for image in images]
        )
        if len(self.wanted) == len(self.detector.names):
            return found
        return [chosen(one, np.isin(one.labels, self.wanted)) for one in found]

    def _write(self, frame: Frame, found: Detections, reel: Reel | None) -> None:
        if self.table is not None:
            self.table.add(frame, found)
        self.summary.images += 1
        self.summary.boxes.update(found.names[label] for label in found.labels)
        if self.painter is not None:
            self.painter.add(frame, found, reel)


def _groups(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    left = iter(frames)
    while group := [*islice(left, size)]:
        yield group
