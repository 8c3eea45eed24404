"""Export detectors of mmdet on backbones of all libraries; write which are equal.

Each pair of the tables of detector_matrix.py, at a small size, with random weights
whose scores are stretched: all pairs in the first of the formats, the detectors on the
first backbone in each of the others. Every pair takes hours on two cores. Interrupted,
the same command goes on where it stopped; --fresh starts anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
FORMATS = ('onnx', 'openvino', 'torch')
_QUERIES = 20
_PROPOSALS = 50


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
    if 'rpn_head' in model:
        # Each goes through the second stage, which of C4 detectors is a whole stage.
        model.test_cfg.rpn.max_per_img = _PROPOSALS
    if 'num_queries' in model:
        model.num_queries = min(model.num_queries, _QUERIES)
    for _, part in walk(model.get('test_cfg')):
        if isinstance(part.get('max_per_img'), int) and 'num_queries' in model:
            part.max_per_img = min(part.max_per_img, _QUERIES)


def page(
    records: Mapping[str, Path], cells: Mapping[str, Sequence[Cell]], command: str
) -> str:
    """Write the records as a page in Markdown.

    Args:
        records: By format, as :func:`detector_matrix.fill` left them; the one for all
            pairs first.
        cells: The pairs to show, by format.
        command: That made them.
    """
    found = {
        format: {c: entry for c, entry in read(path).items() if c in cells[format]}
        for format, path in records.items()
    }
    first = next(iter(found))
    entries = [(format, entry) for format in found for entry in found[format].values()]
    equal = [entry for _, entry in entries if entry['step'] is None]
    of_first = [entry['step'] is None for entry in found[first].values()]
    lines = [
        '# Detectors exported',
        '',
        f'Written by `{command}`; Python {sys.version.split()[0]}, {_versions()}.',
        f'Each pair: `mmdet-backbones export` at {SIZE[0]} x {SIZE[1]} pixels with',
        "random weights whose scores are stretched, compared with mmdet's own predict",
        'on three synthetic images. Nothing is trained; `?` was not tried.',
        '',
        f'**{sum(of_first)} of {len(of_first)} pairs are equal in `{first}`.**',
        '',
        *table(found[first], cells[first], _mark),
    ]
    if equal:
        score = max(entry['score'] for entry in equal)
        corner = max(entry['corner'] for entry in equal)
        lines += ['', f'Largest differences of those that are equal: {score:.1e} of a '
                  f'score, {corner:.1e} pixels of a corner.']  # fmt: skip
    lines += ['', '## Formats', '', f'On `{cells[first][0][1]}`.', '', *_formats(found)]
    failed = [(format, entry) for format, entry in entries if entry['step'] is not None]
    if failed:
        lines += ['', '## Not exported', '']
        lines += [
            f'- {entry["detector"]}, `{entry["backbone"]}` to `{format}` '
            f'({entry["step"]}): {" ".join(entry["reason"].split())}'
            for format, entry in failed
        ]
    return '\n'.join(lines) + '\n'


def _formats(found: Mapping[str, Mapping[Cell, Any]]) -> list[str]:
    first, *_ = found.values()
    backbone = next(iter(first))[1]
    by_format = {
        (detector, format): entry
        for format, pairs in found.items()
        for (detector, name), entry in pairs.items()
        if name == backbone
    }
    detectors = dict.fromkeys(detector for detector, _ in by_format)
    return table(by_format, [(d, f) for d in detectors for f in found], _mark)


def _mark(entry: Any) -> str:
    if entry is None:
        return '?'
    return 'equal' if entry['step'] is None else 'no'


def parse_args() -> argparse.Namespace:
    parser = matrix_parser(__doc__, 'export_matrix', 600)
    parser.add_argument('--formats', nargs='+', default=FORMATS, choices=FORMATS,
                        help='the first for all pairs (%(default)s)')  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.cells:
        detector, *backbones = args.cells
        try_cells(args.record, detector, backbones, args.limit, args.formats[0])
        return
    records, cells = {}, {}
    for format in dict.fromkeys(args.formats):
        backbones = args.backbones if not cells else args.backbones[:1]
        cells[format] = [(d, b) for d in args.detectors for b in backbones]
        records[format] = args.record.with_stem(f'{args.record.stem}_{format}')
        if args.fresh:
            records[format].unlink(missing_ok=True)
    for format, record in records.items():
        worker = [sys.executable, __file__, '--record', str(record),
                  '--limit', str(args.limit), '--formats', format]  # fmt: skip
        for entry in fill(record, cells[format], args.limit, worker):
            state = entry.get('reason') or f'equal, {entry["seconds"]} s'
            pair = f'{entry["detector"]}, {entry["backbone"]}'
            print(f'{pair} to {format}: {state}', flush=True)
    command = 'python tools/upkeep/export_matrix.py'
    args.out.write_text(page(records, cells, command), encoding='utf-8')
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run(main))
