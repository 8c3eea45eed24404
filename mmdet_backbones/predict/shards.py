"""What was found in very many images, in small files until the last one is done.

A file appears whole or not at all, so a run that was killed loses what it was at, and
nothing is found or written twice.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, printable
from ..files import remove_leftovers, write_atomically

_PLAN = 'plan.json'
# Little is lost with one, and a folder of a million images still lists fast.
_FEWEST_IMAGES, _MOST_FILES = 32, 2000


@dataclass
class Shard:
    """What was found in some images that follow each other.

    Attributes:
        lines: JSON lines, one for each image that could be read.
        images: Their number.
        boxes: Number of boxes, by class.
        problems: What could not be read.
    """

    lines: str = ''
    images: int = 0
    boxes: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        """Return the content of its file."""
        return json.dumps(vars(self))

    @classmethod
    def from_text(cls, text: str) -> Shard:
        """Read the content of its file.

        Raises:
            ValueError: If it is none, as after a loss of power; so are the others.
            TypeError: If it has other fields.
        """
        content = json.loads(text)
        return cls(**{**content, 'boxes': Counter(content['boxes'])})


def images_of_one(images: int, batch: int) -> int:
    """Choose how many images share a file: whole batches, so that none is cut."""
    wanted = max(_FEWEST_IMAGES, math.ceil(images / _MOST_FILES))
    return math.ceil(wanted / batch) * batch


class ShardFolder:
    """The files of one run, beside the file that becomes of them.

    Args:
        out: That file.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f'{out.name}.shards')

    def begin(self, plan: Mapping[str, Any], force: bool) -> None:
        """Open the folder, or go on with it if it is of the same run.

        Args:
            plan: What decides over the results, by name.
            force: Begin anew, whatever is there.

        Raises:
            UserError: If what is there was found in another way.
            NotWrittenError: If the folder cannot be written.
        """
        if force:
            shutil.rmtree(self.path, ignore_errors=True)
        file = self.path / _PLAN
        if file.is_file():
            self._require_same(json.loads(json.dumps(plan)), file)
            remove_leftovers(self.path)
        else:
            write_atomically(file, json.dumps(plan, indent=1))

    def _require_same(self, plan: Mapping[str, Any], file: Path) -> None:
        try:
            before = dict(json.loads(file.read_text(encoding='utf-8')))
        except ValueError:
            before = {}
        changed = [
            f'{name} was {printable(repr(before.get(name)))}, now it is '
            f'{printable(repr(plan.get(name)))}'
            for name in sorted({*plan, *before})
            if before.get(name) != plan.get(name)
        ]
        if changed:
            raise UserError(
                f"'{self.path}' holds what another run found that was stopped: "
                f'{"; ".join(changed)}. Write the command as it was, which goes on, '
                'or --force, which begins anew'
            )

    def add(self, number: int, text: str) -> None:
        """Write one file.

        Raises:
            NotWrittenError: If it cannot be written.
        """
        write_atomically(self._file(number), text)

    def read(self, number: int) -> Shard | None:
        """Read one file; None if it is not there, or not whole."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return Shard.from_text(self._file(number).read_text(encoding='utf-8'))
        return None

    def lines(self, count: int) -> Iterator[str]:
        """Yield the lines of the first files, in their order.

        Raises:
            UserError: If one was taken away meanwhile.
        """
        for number in range(count):
            shard = self.read(number)
            if shard is None:
                raise UserError(
                    f"'{self._file(number)}' was taken away: start the same command "
                    'again, which finds it once more'
                )
            yield shard.lines

    def remove(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.path / f'{number:06}.json'
