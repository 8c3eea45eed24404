"""Export detectors of mmdet on backbones of all libraries; write which are equal.

Each pair of the tables of detector_matrix.py, in one format, at a small size, with
random weights whose scores are stretched. Every pair takes hours on two cores.
Interrupted, the same command goes on where it stopped; --fresh starts anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from detector_matrix import (
    DETECTORS,
    Cell,
    _time_limit,
    _versions,
    fill,
    matrix_parser,
    note,
    read,
    table,
)
from stretched import as_trained, swapped

from mmdet_backbones.deploy.exporting import export_with_figures
from mmdet_backbones.deploy.options import ExportOptions
from mmdet_backbones.detector_config.tree import walk
from mmdet_backbones.engine.quiet import only_ours
from mmdet_backbones.errors import UserError, explain, run

# SSD takes images of 300 x 300 pixels and its own backbone.
SIZE = (128, 160)
_QUERIES = 20


def try_cells(
    record: Path, detector: str, backbones: Sequence[str], limit: float, format: str
) -> None:
    """Export one detector with some backbones, in this process.

    Args:
        record: Added to after each pair.
        detector: A key of ``DETECTORS``.
        backbones: Names of the catalog.
        limit: Seconds for one pair.
        format: Of the export.
    """
    for backbone in backbones:
        started = time.monotonic()
        result = _try_cell(detector, backbone, limit, format)
        result['seconds'] = round(time.monotonic() - started, 1)
        note(record, (detector, backbone), result)


def _try_cell(detector: str, backbone: str, limit: float, format: str) -> dict:
    step = 'build'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with _time_limit(limit), only_ours():
                config = swapped(DETECTORS[detector], backbone, folder)
                _make_small(config)
                path = as_trained(config, folder, SIZE)
                step = 'export'
                done = export_with_figures(
                    ExportOptions(str(path), folder / 'out', format, size=SIZE)
                )
        except UserError as error:
            return dict(step=step, reason=str(error)[:600], told=True)
        except Exception as error:  # whatever a detector raises is what is asked here
            reason = f'{type(error).__name__}: {explain(error)}'
            return dict(step=step, reason=reason.splitlines()[0][:400])
    found = done.comparison
    return dict(
        step=None,
        boxes=found.boxes,
        ties=found.ties,
        score=found.largest_score,
        corner=found.largest_corner,
    )


def _make_small(config: Config) -> None:
    model = config.model
    if 'num_queries' in model:
        model.num_queries = min(model.num_queries, _QUERIES)
    for _, part in walk(model.get('test_cfg')):
        if isinstance(part.get('max_per_img'), int) and 'num_queries' in model:
            part.max_per_img = min(part.max_per_img, _QUERIES)


def page(record: Path, cells: Sequence[Cell], command: str, format: str) -> str:
    """Write the record as a page in Markdown.

    Args:
        record: As :func:`detector_matrix.fill` left it.
        cells: The pairs to show.
        command: That made it.
        format: Of the exports.
    """
    found = {cell: entry for cell, entry in read(record).items() if cell in cells}
    equal = [entry for entry in found.values() if entry['step'] is None]
    lines = [
        '# Detectors exported',
        '',
        f'Written by `{command}`; Python {sys.version.split()[0]}, {_versions()}.',
        f'Each pair: `mmdet-backbones export --format {format}` at {SIZE[0]} x '
        f'{SIZE[1]} pixels with',
        "random weights whose scores are stretched, compared with mmdet's own predict",
        'on three synthetic images. Nothing is trained.',
        '',
        f'**{len(equal)} of {len(found)} pairs are equal.**',
        '',
        *table(found, cells, _mark),
    ]
    if equal:
        score = max(entry['score'] for entry in equal)
        corner = max(entry['corner'] for entry in equal)
        lines += ['', f'Largest differences of those that are equal: {score:.1e} of a '
                  f'score, {corner:.1e} pixels of a corner.']  # fmt: skip
    failed = [entry for entry in found.values() if entry['step'] is not None]
    if failed:
        lines += ['', '## Not exported', '']
        lines += [
            f'- {entry["detector"]}, `{entry["backbone"]}` ({entry["step"]}): '
            f'{" ".join(entry["reason"].split())}'
            for entry in failed
        ]
    return '\n'.join(lines) + '\n'


def _mark(entry: Any) -> str:
    if entry is None:
        return '?'
    return 'equal' if entry['step'] is None else 'no'


def parse_args() -> argparse.Namespace:
    parser = matrix_parser(__doc__, 'export_matrix', 600)
    parser.add_argument('--format', default='onnx',
                        choices=('onnx', 'openvino', 'torch'))  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.cells:
        detector, *backbones = args.cells
        try_cells(args.record, detector, backbones, args.limit, args.format)
        return
    if args.fresh:
        args.record.unlink(missing_ok=True)
    cells = [(d, b) for d in args.detectors for b in args.backbones]
    worker = [sys.executable, __file__, '--record', str(args.record),
              '--limit', str(args.limit), '--format', args.format]  # fmt: skip
    for entry in fill(args.record, cells, args.limit, worker):
        state = entry.get('reason') or f'equal, {entry["seconds"]} s'
        print(f'{entry["detector"]}, {entry["backbone"]}: {state}', flush=True)
    command = 'python tools/upkeep/export_matrix.py'
    text = page(args.record, cells, command, args.format)
    args.out.write_text(text, encoding='utf-8')
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run(main))
