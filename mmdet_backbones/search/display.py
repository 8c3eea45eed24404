"""A search while it runs: a live table on a terminal, elsewhere a line each time."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .report import HEADS, ranked, row_of
from .state import SearchState, Shows

# What a narrow terminal has no room for is in the report.
_SHOWN = ('trial', 'backbone', 'size', 'rate', 'AP', 'epochs', 'ms', 'time', 'state')


class Display:
    """Shows a search on stderr within it."""

    def __init__(self) -> None:
        self._console = Console(
            stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        terminal = sys.stderr.isatty() and self._console.is_interactive
        self._live = (
            Live(console=self._console, auto_refresh=False) if terminal else None
        )

    def __enter__(self) -> Shows:
        if self._live is not None:
            self._live.start()
        return self.show

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, state: SearchState, happened: str) -> None:
        """Draw the table anew, or tell what happened."""
        if self._live is not None:
            self._live.update(table_of(state, happened), refresh=True)
        elif happened:
            self._console.print(happened)


def table_of(state: SearchState, caption: str = '') -> Table:
    """Lay out the trials, the best first."""
    table = Table(box=None, caption=caption or None, caption_justify='left')
    columns = [HEADS.index(head) for head in _SHOWN]
    for head in _SHOWN:
        table.add_column(head, overflow='fold')
    for record in ranked(state):
        row = row_of(state, record)
        table.add_row(*(row[column] for column in columns))
    return table
