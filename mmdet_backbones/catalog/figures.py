"""What every backbone is like, kept in a file: building them all takes long."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..levels import Level

PATH = Path(__file__).with_name('levels.json')
# Height and width that multiply-adds are counted at, where a net takes any size.
COUNT_SIZE = (640, 640)


@dataclass(frozen=True)
class Figures:
    """What building a backbone showed, and what its library tells of its weights.

    Attributes:
        parameters: In all, without any head; 0 if it cannot be used.
        levels: All of them, shallow to deep.
        macs: Multiply-adds for one image.
        size: Its height and width.
        refused: Why the backbone cannot be built, in its own words, or None.
        failed: What broke that should not, or None.
        published: Whether its library has weights for it.
        licence: Of the usual ones, None if there are none.
        top1: Their accuracy on ImageNet-1k in percent, None if it is not told.
    """

    parameters: int = 0
    levels: tuple[Level, ...] = ()
    macs: int = 0
    size: tuple[int, int] = COUNT_SIZE
    refused: str | None = None
    failed: str | None = None
    published: bool = True
    licence: str | None = None
    top1: float | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be built."""
        return self.refused is None and self.failed is None

    def to_dict(self) -> dict[str, Any]:
        """Return the short form of the file."""
        data = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != item.default
        }
        return {**data, 'levels': write_levels(self.levels)} if self.levels else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figures:
        """Read the short form of the file."""
        levels = read_levels(data.get('levels', ''))
        size = data.get('size', COUNT_SIZE)
        return cls(**{**data, 'levels': levels, 'size': tuple(size)})


@dataclass(frozen=True)
class SourceFigures:
    """Figures of one source.

    Attributes:
        version: Of the library that they were made from.
        models: Figures by the name of the catalog.
    """

    version: str | None = None
    models: Mapping[str, Figures] = field(default_factory=dict)


@cache
def read_figures(path: Path = PATH) -> dict[str, SourceFigures]:
    """Read the file.

    Args:
        path: Where it is.

    Returns:
        Figures by source; nothing if there is no file.
    """
    if not path.is_file():
        return {}
    return {
        source: SourceFigures(
            content['version'],
            {n: Figures.from_dict(data) for n, data in content['models'].items()},
        )
        for source, content in json.loads(path.read_text(encoding='utf-8')).items()
    }


def write_figures(figures: Mapping[str, SourceFigures], path: Path = PATH) -> None:
    """Write the file, one backbone per line so that changes can be read.

    Args:
        figures: By source.
        path: Where to.
    """
    blocks = []
    for source, content in figures.items():
        lines = [
            f'   {json.dumps(name)}: {json.dumps(model.to_dict())}'
            for name, model in content.models.items()
        ]
        models = ',\n'.join(lines)
        version = json.dumps(content.version)
        blocks.append(
            f' {json.dumps(source)}: {{\n  "version": {version},\n'
            f'  "models": {{\n{models}\n  }}\n }}'
        )
    write_atomically(path, '{\n' + ',\n'.join(blocks) + '\n}\n')
    read_figures.cache_clear()


def short_levels(levels: Sequence[Level]) -> str:
    """Write ``96@4 192@8``; levels that repeat, as in a ViT, as ``192@16 x12``."""
    parts = []
    for (channels, stride), same in groupby(
        levels, lambda lv: (lv.channels, lv.stride)
    ):
        count = len(list(same))
        times = f' x{count}' if count > 1 else ''
        parts.append(f'{channels}@{stride}{times}')
    return ' '.join(parts)


def write_levels(levels: Sequence[Level]) -> str:
    """Write levels for the file.

    Returns:
        As :func:`short_levels`, with ``2:`` where the numbers of the levels do not go
        on from the one before, or do not start at 0.
    """
    parts = []
    for gap, same in groupby(enumerate(levels), lambda item: item[1].index - item[0]):
        run = [level for _, level in same]
        parts.append((f'{run[0].index}:' if gap else '') + short_levels(run))
    return ' '.join(parts)


def read_levels(text: str) -> tuple[Level, ...]:
    """Read what :func:`write_levels` wrote."""
    levels: list[Level] = []
    for start, channels, stride, times in _RUN.findall(text):
        first = int(start) if start else (levels[-1].index + 1 if levels else 0)
        levels += [
            Level(first + n, int(channels), int(stride)) for n in range(int(times or 1))
        ]
    return tuple(levels)


_RUN = re.compile(r'(?:(\d+):)?(\d+)@(\d+)(?: x(\d+))?')
