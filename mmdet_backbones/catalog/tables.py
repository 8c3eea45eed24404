"""Listings and inspections as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from ..levels import Level
from .inspection import Inspection
from .listing import Listing


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


def level_table(inspection: Inspection) -> Table:
    """Lay out the levels of one backbone."""
    height, width = inspection.size
    table = Table('index', 'channels', 'stride', f'map at {height} x {width}', box=None)
    for level in inspection.levels:
        size = f'{level.height} x {level.width}'
        table.add_row(str(level.index), str(level.channels), str(level.stride), size)
    return table


def stage_table(inspection: Inspection) -> Table:
    """Lay out the parameters of one backbone by stage."""
    table = Table(box=None)
    table.add_column('stage')
    table.add_column('parameters', justify='right')
    for name, count in inspection.stages.items():
        table.add_row(name, f'{count:,}')
    table.add_row('all', f'{inspection.parameters:,}', style='bold')
    return table
