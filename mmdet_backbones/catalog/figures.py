"""Parameters and levels of every backbone, kept in a file: building them takes long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..levels import Level

PATH = Path(__file__).with_name('levels.json')


@dataclass(frozen=True)
class Figures:
    """What building a backbone showed.

    Attributes:
        parameters: In all, without any head; 0 if it cannot be used.
        levels: All of them, shallow to deep.
        refused: Why the backbone cannot be built, in its own words, or None.
        failed: What broke that should not, or None.
        published: Whether its library has weights for it.
    """

    parameters: int = 0
    levels: tuple[Level, ...] = ()
    refused: str | None = None
    failed: str | None = None
    published: bool = True

    @property
    def usable(self) -> bool:
        """Whether it can be built."""
        return self.refused is None and self.failed is None

    def to_dict(self) -> dict[str, Any]:
        """Return the short form of the file."""
        weights = {} if self.published else {'published': False}
        if not self.usable:
            kind = 'refused' if self.refused is not None else 'failed'
            return {kind: getattr(self, kind), **weights}
        levels = [[level.index, level.channels, level.stride] for level in self.levels]
        return {'parameters': self.parameters, 'levels': levels, **weights}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figures:
        """Read the short form of the file."""
        levels = tuple(Level(*level) for level in data.get('levels', ()))
        others = {key: data[key] for key in data if key != 'levels'}
        return cls(levels=levels, **others)


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
