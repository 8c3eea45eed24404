"""Choose backbones of the catalog by name, strides, size and licence, and sort them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from math import inf
from typing import Any

from rich.table import Table

from ..commands import command
from ..errors import UserError
from .conditions import Condition, conditions_of, nothing_left
from .entries import SOURCES, nearest, recorded_source
from .entry import OURS, Entry, Source
from .figures import COUNT_SIZE, Figures, SourceFigures, read_figures, short_levels

_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'B': 10**9}
# No backbone is as small, so that a number below it lacks its unit.
_FEWEST_PARAMETERS = 10_000


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
        asked: What the rows were chosen or sorted by, names of columns of the table.
    """

    rows: tuple[Row, ...]
    sources: tuple[Source, ...]
    refused: Mapping[str, str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    asked: tuple[str, ...] = ()

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
        macs=known.macs if known else None,
        size=known.size if known else None,
        licence=known.licence if known else None,
        top1=known.top1 if known else None,
    )


def list_backbones(
    pattern: str = '',
    sources: Sequence[str] | None = None,
    strides: Collection[int] = (),
    max_parameters: int | None = None,
    licence: str | None = None,
    sort: str | None = None,
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
        licence: Its usual weights have it, as their library tells: a name, a glob
            (``'cc-by-*'``), or ``'commercial'`` for Apache 2.0, BSD, MIT and CC BY.
        sort: A key of :data:`SORTS`, the order of the libraries if left out.
        figures: By source; those of the package if left out.

    Returns:
        The listing.

    Raises:
        UserError: A ``ValueError``, if nothing is left, with the nearest names or with
            what there is.
    """
    if sort is not None and sort not in SORTS:
        raise UserError(f"sort must be one of {', '.join(SORTS)}, got '{sort}'")
    conditions = conditions_of(strides, max_parameters, licence)
    figures = read_figures() if figures is None else figures
    loaded = [
        _load(name, figures.get(name, SourceFigures())) for name in sources or SOURCES
    ]
    named = [
        Row(entry, figures.get(source.name, SourceFigures()).models.get(name))
        for source in loaded
        for name, entry in source.entries.items()
        if matches(name, pattern)
    ]
    if not named and pattern:
        raise UserError(_nothing_named(pattern, loaded))
    refused = {
        row.entry.name: row.figures.refused or row.figures.failed or ''
        for row in named
        if row.figures and not row.figures.usable
    }
    left_out = [row.entry.name for row in named if conditions and not row.figures]
    rows = [row for row in named if _chosen(row, conditions)]
    if named and not rows:
        what = f"that match '{pattern}'" if pattern else 'here'
        usable = [row.figures for row in named if row.figures and row.figures.usable]
        raise UserError(nothing_left(what, conditions, usable, refused, left_out))
    return Listing(
        tuple(_sorted(rows, sort)),
        tuple(loaded),
        refused,
        tuple(left_out),
        (*_version_notes(loaded, figures), *_lacking_notes(rows, left_out, sort)),
        (sort or '', 'licence' if licence else ''),
    )


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
        digits = float(text.removesuffix(text[-1:]) if unit else text)
        number = int(digits * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"a number of parameters is digits with K, M or B, as in 30M, got '{text}'"
        ) from error
    if not unit and number < _FEWEST_PARAMETERS:
        raise UserError(
            f'no backbone has as few as {text} parameters: write --max-params {text}M '
            'for millions, a number of parameters is digits with K, M or B'
        )
    return number


def _load(name: str, known: SourceFigures) -> Source:
    models = {model: found.published for model, found in known.models.items()}
    return recorded_source(name, known.version, models)


def _chosen(row: Row, conditions: Sequence[Condition]) -> bool:
    known = row.figures
    if known is None:
        return not conditions
    return known.usable and all(condition.holds(known) for condition in conditions)


def _nothing_named(pattern: str, sources: Sequence[Source]) -> str:
    names = [name for source in sources for name in source.entries]
    problems = ''.join(f' {source.problem}.' for source in sources if source.problem)
    of = f' of {", ".join(s.name for s in sources)}' * (len(sources) < len(SOURCES))
    near = nearest(re.sub(r'[*?\[\]]', '', pattern), names)
    return f"no backbone{of} matches '{pattern}'.{near}{problems}"


# How rows are sorted, smallest first. What is counted at another size than usual is
# not comparable and comes later.
SORTS: dict[str, Callable[[Row, Figures], Any]] = {
    'macs': lambda row, known: (known.size != COUNT_SIZE, known.macs),
    'name': lambda row, known: row.entry.name.lower(),
    'params': lambda row, known: known.parameters,
    'top1': lambda row, known: inf if known.top1 is None else -known.top1,
}


def _sorted(rows: Sequence[Row], sort: str | None) -> Sequence[Row]:
    """Sort rows, those without figures last."""
    if sort is None:
        return rows

    def order(row: Row) -> tuple[bool, Any]:
        unknown = row.figures is None and sort != 'name'
        return unknown, SORTS[sort](row, row.figures or Figures())

    return sorted(rows, key=order)


def _version_notes(
    sources: Sequence[Source], figures: Mapping[str, SourceFigures]
) -> Iterator[str]:
    for source in sources:
        known = figures.get(source.name, SourceFigures())
        if source.problem is not None or source.name == OURS or not known.models:
            continue
        if known.version != source.version:
            yield (
                f'the figures are those of {source.name} {known.version}, installed is '
                f'{source.version}'
            )


def _lacking_notes(
    rows: Sequence[Row], left_out: Sequence[str], sort: str | None
) -> Iterator[str]:
    if left_out:
        yield (
            f'{len(left_out)} backbones have no figures here and were left out; '
            f'{command("inspect")} {left_out[0]} inspects one, '
            'python tools/upkeep/update_catalog.py all'
        )
    lacking = sum(row.figures is None or row.figures.top1 is None for row in rows)
    if sort == 'top1' and lacking:
        yield (
            f'{lacking} of {len(rows)} backbones stand last: their libraries do not '
            'tell how accurate their usual weights are'
        )


_HEADS = {
    'name': 'name',
    'levels': 'channels@stride',
    'params': 'parameters',
    'macs': f'GMACs at {COUNT_SIZE[0]}',
    'top1': 'top-1',
    'licence': 'licence',
}
# The order in which columns are left out where the terminal is narrow.
_CAN_GO = ('macs', 'licence', 'top1', 'params', 'levels')
# Levels go over several lines before a column is left out.
_LEVELS_WIDTH = 18
_GAP = 2


def listing_table(listing: Listing, width: int | None = None) -> Table:
    """Lay out a listing.

    Args:
        listing: From :func:`list_backbones`.
        width: Of the terminal; columns that it has no room for are left out and named
            below the table, those that were asked for last. Names are never cut.

    Returns:
        A table of names, channels at strides, parameters, multiply-adds, and accuracy
        and licence of the usual weights.
    """
    rows = [_cells(row) for row in listing.rows]
    for source in listing.sources:
        if source.problem is not None:
            cells = dict(name=f'{source.name}/*', levels=source.problem)
            rows.append({**dict.fromkeys(_HEADS, '-'), **cells})
    widths = {c: max(len(row[c]) for row in ({**_HEADS}, *rows)) for c in _HEADS}
    if width is not None:
        widths = _in_width(widths, width, listing.asked)
    missing = ', '.join(_HEADS[column] for column in _HEADS if column not in widths)
    table = Table(
        box=None,
        header_style='bold',
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
        caption=f'no room for: {missing}' if missing else None,
        caption_justify='left',
    )
    for column, room in widths.items():
        table.add_column(
            _HEADS[column],
            justify='right' if column in ('params', 'macs', 'top1') else 'left',
            width=room,
            overflow='fold',
        )
    for row in rows:
        table.add_row(*(row[column] for column in widths))
    return table


def _cells(row: Row) -> dict[str, str]:
    known = row.figures
    if known is None:
        return dict.fromkeys(_HEADS, '?') | {'name': row.entry.name}
    height, width = known.size
    other = f'{height}' if height == width else f'{height} x {width}'
    at = '' if known.size == COUNT_SIZE else f' at {other}'
    return dict(
        name=row.entry.name,
        levels=short_levels(known.levels),
        params=f'{known.parameters / 1e6:.2f} M',
        macs=f'{known.macs / 1e9:.2f}{at}',
        top1='-' if known.top1 is None else f'{known.top1:.1f}',
        licence=known.licence or '-',
    )


def _in_width(
    widths: Mapping[str, int], width: int, asked: Collection[str]
) -> dict[str, int]:
    """Leave columns out until the others have room, with levels on several lines."""
    kept = dict(widths)
    for column in (*sorted(_CAN_GO, key=lambda column: column in asked), None):
        gaps = _GAP * (len(kept) - 1)
        others = sum(n for name, n in kept.items() if name != 'levels') + gaps
        least = min(widths['levels'], _LEVELS_WIDTH) if 'levels' in kept else 0
        if others + least <= width or column is None:
            break
        del kept[column]
    if 'levels' in kept:
        kept['levels'] = min(kept['levels'], width - others)
    return {**kept, 'name': min(kept['name'], width)}
