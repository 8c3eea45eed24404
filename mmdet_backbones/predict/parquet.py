"""JSON lines of boxes as one Parquet file, with the same names for the same things."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files import whole_file

# Of one group, which is what a reader has in memory at once.
_ROWS = 10_000


def write_parquet(path: Path, texts: Iterable[str]) -> None:
    """Write boxes, a row for each image.

    Args:
        path: Of the file, which appears when it is whole.
        texts: Of JSON lines as :class:`~.tables.JsonLines` writes them, of images.

    Raises:
        NotWrittenError: If it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    box = pa.struct(
        {'class': pa.string(), 'score': pa.float32(), 'box': pa.list_(pa.float32(), 4)}
    )
    sides = {'width': pa.int32(), 'height': pa.int32()}
    schema = pa.schema({'image': pa.string(), **sides, 'boxes': pa.list_(box)})
    rows: list[dict[str, Any]] = []
    with whole_file(path) as partial, parquet.ParquetWriter(partial, schema) as file:
        for text in texts:
            rows += map(_row, text.splitlines())
            if len(rows) >= _ROWS:
                file.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        file.write_table(pa.Table.from_pylist(rows, schema))


def _row(line: str) -> dict[str, Any]:
    row = json.loads(line)
    # Parquet has no place for names that are no text.
    row['image'] = row['image'].encode('utf-8', 'replace').decode()
    return row
