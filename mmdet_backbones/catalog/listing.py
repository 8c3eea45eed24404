"""Choose backbones of the catalog by name, strides and size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from rich.table import Table

from ..errors import UserError
from ..levels import Level
from .entries import SOURCES, recorded_source
from .entry import OURS, Entry, Source
from .figures import Figures, SourceFigures, read_figures

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'B': 10**9}


@dataclass(frozen=True)
class Row:
    """One backbone that was chosen.

    Attributes:
        entry: From the catalog.
        figures: Parameters and levels, None if nobody measured them.
    """

    entry: Entry
    figures: Figures | None


@dataclass(frozen=True)
class Listing:
    """What :func:`list_backbones` found.

    Attributes:
        rows: The chosen backbones.
        sources: All sources that were asked for, those that cannot be used included.
        refused: Backbones that fit the pattern and cannot be built, and why.
        left_out: Backbones that fit the pattern and have no figures to filter by.
        notes: What is to be said about the figures, one sentence each.
    """

    rows: tuple[Row, ...]
    sources: tuple[Source, ...]
    refused: Mapping[str, str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return dict(
            backbones=[_row_dict(row) for row in self.rows],
            sources={
                source.name: dict(version=source.version, problem=source.problem)
                for source in self.sources
            },
            refused=dict(self.refused),
            left_out=list(self.left_out),
            notes=list(self.notes),
        )


def _row_dict(row: Row) -> dict[str, Any]:
    known = row.figures
    return dict(
        name=row.entry.name,
        source=row.entry.source,
        config=dict(row.entry.config),
        weights=row.entry.weights,
        parameters=known.parameters if known else None,
        levels=[asdict(level) for level in known.levels] if known else None,
    )


def list_backbones(
    pattern: str = '',
    sources: Sequence[str] | None = None,
    strides: Collection[int] = (),
    max_parameters: int | None = None,
    figures: Mapping[str, SourceFigures] | None = None,
) -> Listing:
    """Choose backbones of the installed libraries.

    Args:
        pattern: A glob (``'timm/resnet*d'``), or a part of the name. Capitals and
            small letters are the same.
        sources: Keys of :data:`~mmdet_backbones.catalog.entries.SOURCES`; all if left
            out.
        strides: The backbone has levels of all of these.
        max_parameters: The backbone has no more, without any head.
        figures: By source; those of the package if left out.

    Returns:
        The listing, in the order of the libraries.
    """
    filtering = bool(strides) or max_parameters is not None
    figures = read_figures() if figures is None else figures
    loaded = [
        _load(name, figures.get(name, SourceFigures())) for name in sources or SOURCES
    ]
    rows, left_out, notes = [], [], []
    refused = {}
    for source in loaded:
        known = figures.get(source.name, SourceFigures())
        notes += _version_notes(source, known)
        for entry in source.entries.values():
            if not matches(entry.name, pattern):
                continue
            found = known.models.get(entry.name)
            if found is None and filtering:
                left_out.append(entry.name)
            elif found is not None and not found.usable:
                refused[entry.name] = found.refused or found.failed or ''
            elif found is None or _passes(found, strides, max_parameters):
                rows.append(Row(entry, found))
    if left_out:
        notes.append(
            f'{len(left_out)} backbones have no figures here and were left out; '
            f'python tools/inspect_backbone.py {left_out[0]} inspects one, '
            'python tools/upkeep/update_catalog.py all'
        )
    return Listing(tuple(rows), tuple(loaded), refused, tuple(left_out), tuple(notes))


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name fits a glob, or contains a part without ``*``, ``?``, ``[``.

    A glob may leave the source out: ``'resnet*'`` is ``'*/resnet*'`` too.
    """
    name, pattern = name.lower(), pattern.lower()
    if not any(sign in pattern for sign in '*?['):
        return pattern in name
    model = name.rpartition('/')[2]
    return fnmatchcase(name, pattern) or fnmatchcase(model, pattern)


def parse_count(text: str) -> int:
    """Read a number of parameters: ``'30M'``, ``'500K'``, ``'1.2B'`` or digits.

    Raises:
        UserError: A ``ValueError``, if it is none.
    """
    unit = text[-1:].upper() if text[-1:].upper() in _UNITS else ''
    try:
        return int(float(text.removesuffix(text[-1:]) if unit else text) * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"a number of parameters is digits with K, M or B, as in 30M, got '{text}'"
        ) from error


def _load(name: str, known: SourceFigures) -> Source:
    models = {model: found.published for model, found in known.models.items()}
    return recorded_source(name, known.version, models)


def _passes(
    figures: Figures, strides: Collection[int], max_parameters: int | None
) -> bool:
    fits = max_parameters is None or figures.parameters <= max_parameters
    return fits and set(strides) <= {level.stride for level in figures.levels}


def _version_notes(source: Source, known: SourceFigures) -> list[str]:
    if source.problem is not None or source.name == OURS or not known.models:
        return []
    if known.version == source.version:
        return []
    return [
        f'the figures are those of {source.name} {known.version}, installed is '
        f'{source.version}'
    ]


def listing_table(listing: Listing) -> Table:
    """Lay out a listing: name, channels at strides, parameters."""
    table = Table(box=None, header_style='bold', pad_edge=False)
    table.add_column('name', no_wrap=True)
    table.add_column('levels (channels@stride)', overflow='fold')
    table.add_column('parameters', justify='right', no_wrap=True)
    for row in listing.rows:
        known = row.figures
        levels = short_levels(known.levels) if known else '?'
        parameters = f'{known.parameters / 1e6:.2f} M' if known else '?'
        table.add_row(row.entry.name, levels, parameters)
    for source in listing.sources:
        if source.problem is not None:
            table.add_row(f'{source.name}/*', source.problem, '-')
    return table


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
