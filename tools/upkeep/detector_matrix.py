"""Put backbones into detectors of mmdet and write which pairs run, as a table.

Every pair of the tables takes about two hours on two cores. Interrupted, the same
command goes on where it stopped; --fresh starts anew.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import errors_of
from mmdet_backbones.check.trial import SIZE, try_config
from mmdet_backbones.errors import UserError, explain, run
from mmdet_backbones.swap.swapping import SwapOptions, save

ROOT = Path(__file__).resolve().parents[2]
# Configs of mmdet 3.3.0. SSD is missing: it takes images of 300 pixels only.
DETECTORS: dict[str, str] = {
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Faster R-CNN C4': 'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'TOOD': 'tood/tood_r50_fpn_1x_coco.py',
    'YOLOv3': 'yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'YOLOX': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'CenterNet': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}
BACKBONES = (
    'timm/resnet18',
    'timm/mobilenetv2_100',
    'timm/convnext_atto',
    'timm/vit_tiny_patch16_224',
    'torchvision/resnet18',
    'torchvision/mobilenet_v3_large',
    'torchvision/vgg11_bn',
    'torchvision/swin_t',
    'mmpretrain/shufflenet-v2-1x',
    'mmpretrain/mobilenet-v3-small',
    'mmpretrain/swin-tiny',
    'mmdet/ResNet-18',
    'mmdet/PVTv2-b0',
    'res2net50_26w_4s',
    'transformers/microsoft/resnet-18',
    'transformers/facebook/convnextv2-atto-1k-224',
    'transformers/facebook/dinov3-vits16-pretrain-lvd1689m',
)
_DIED = 'the process died'
Cell = tuple[str, str]


def fill(
    record: Path, cells: Sequence[Cell], limit: float, command: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Try all pairs that the record does not have.

    One process tries the pairs of one detector. If it dies, the pair it was at is
    noted and another process goes on with the next.

    Args:
        record: A file with one JSON object a line, added to.
        cells: Detector and backbone, names of the tables above.
        limit: Seconds for one pair.
        command: Starts a process that calls :func:`try_cells`; the detector and the
            backbones are added to it.

    Yields:
        What is in the record of each pair, as it comes.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    for detector in dict.fromkeys(detector for detector, _ in cells):
        while missing := _missing(record, detector, cells):
            before = len(read(record))
            line = [*command, '--cells', detector, *missing]
            done = subprocess.run(
                line,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=(limit + 120) * len(missing),
                check=False,
            )
            if len(read(record)) - before < len(missing):
                left = _missing(record, detector, cells)
                tail = done.stderr.strip().splitlines()[-1:]
                reason = f'{_DIED} with status {done.returncode}: {"".join(tail)}'
                note(record, (detector, left[0]), dict(step='process', reason=reason))
            found = read(record)
            yield from (found[(detector, b)] for b in missing if (detector, b) in found)


def _missing(record: Path, detector: str, cells: Sequence[Cell]) -> list[str]:
    known = read(record)
    return [b for d, b in cells if d == detector and (d, b) not in known]


def try_cells(
    record: Path, detector: str, backbones: Sequence[str], limit: float
) -> None:
    """Try one detector with some backbones, in this process.

    Args:
        record: Added to after each pair.
        detector: A key of ``DETECTORS``.
        backbones: Names of the catalog.
        limit: Seconds for one pair.
    """
    for backbone in backbones:
        started = time.monotonic()
        result = _try_cell(detector, backbone, limit)
        result['seconds'] = round(time.monotonic() - started, 1)
        note(record, (detector, backbone), result)


def _try_cell(detector: str, backbone: str, limit: float) -> dict[str, Any]:
    base = DETECTORS[detector]
    step = 'swap'
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'swapped.py'
        try:
            with _time_limit(limit):
                save(SwapOptions(f'mmdet::{base}', backbone, out))
                step = 'check'
                _require_sound(out)
                step = 'run'
                trial = try_config(out)
        except UserError as error:
            # Told in a message: a pair that is no pair, not a fault.
            return dict(step=step, reason=str(error), told=True)
        except Exception as error:  # whatever a detector raises is what is asked here
            reason = f'{type(error).__name__}: {explain(error)}'
            return dict(step=step, reason=reason.splitlines()[0][:400])
    return dict(step=None, loss=trial.loss, idle=len(trial.idle))


def _require_sound(path: Path) -> None:
    errors = errors_of(check_config(Config.fromfile(path)))
    if errors:
        found = '; '.join(f'{error.key}: {error.problem}' for error in errors)
        raise UserError(found)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f'not done after {seconds:.0f} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def note(record: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    """Add one pair to the record."""
    line = dict(detector=cell[0], backbone=cell[1], **result)
    with record.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')


def read(record: Path) -> dict[Cell, dict[str, Any]]:
    """Read the record; a pair that was tried twice counts as it ended last."""
    if not record.is_file():
        return {}
    lines = record.read_text(encoding='utf-8').splitlines()
    found = [json.loads(line) for line in lines]
    return {(entry['detector'], entry['backbone']): entry for entry in found}


def page(record: Path, cells: Sequence[Cell], command: str) -> str:
    """Write the record as a page in Markdown.

    Args:
        record: As :func:`fill` left it.
        cells: The pairs to show.
        command: That made it.
    """
    found = {cell: entry for cell, entry in read(record).items() if cell in cells}
    works = [cell for cell, entry in found.items() if entry['step'] is None]
    lines = [
        '# Detectors against backbones',
        '',
        f'Written by `{command}`; Python {sys.version.split()[0]}, {_versions()}.',
        'Each pair: `tools/swap_backbone.py`, the fast check of what it wrote, then',
        'loss, backward and predict with random weights on two synthetic images of',
        f'{SIZE[0]} x {SIZE[1]} pixels. Nothing is trained. SSD is missing: it takes',
        'images of 300 x 300 pixels only, see `tests/swap/test_swap.py`.',
        '',
        f'**{len(works)} of {len(found)} pairs work'
        f' ({100 * len(works) / max(len(found), 1):.1f} %).**',
        '',
        *table(found, cells, _mark),
    ]
    failed = [entry for entry in found.values() if entry['step'] is not None]
    if failed:
        lines += ['', '## What does not work', '']
        lines += [
            f'- {entry["detector"]}, `{entry["backbone"]}` ({entry["step"]}): '
            f'{entry["reason"]}'
            for entry in failed
        ]
    return '\n'.join(lines) + '\n'


def table(
    found: Mapping[Cell, Mapping[str, Any]],
    cells: Sequence[Cell],
    mark: Callable[[Mapping[str, Any] | None], str],
) -> list[str]:
    """Lines of a table in Markdown, a detector each.

    Args:
        found: What is recorded of the pairs.
        cells: The pairs to show.
        mark: What stands for a pair.
    """
    backbones = list(dict.fromkeys(backbone for _, backbone in cells))
    lines = [
        f'| detector | {" | ".join(f"`{name}`" for name in backbones)} |',
        f'|---{"|:-:" * len(backbones)}|',
    ]
    for detector in dict.fromkeys(detector for detector, _ in cells):
        marks = [mark(found.get((detector, backbone))) for backbone in backbones]
        lines.append(f'| {detector} | {" | ".join(marks)} |')
    return lines


def _mark(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return '?'
    if entry['step'] is None:
        return 'yes' if not entry['idle'] else f'yes, {entry["idle"]} idle'
    return 'no'


def _versions() -> str:
    import mmdet
    import torch

    return f'torch {torch.__version__}, mmdet {mmdet.__version__}'


def matrix_parser(
    description: str | None, name: str, limit: float
) -> argparse.ArgumentParser:
    """Make the parser of a tool that tries all pairs.

    Args:
        description: Of the tool.
        name: Of its record and its page.
        limit: Seconds for a pair.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--detectors', nargs='+', choices=list(DETECTORS),
                        default=list(DETECTORS), metavar='NAME')  # fmt: skip
    parser.add_argument('--backbones', nargs='+', default=list(BACKBONES))
    parser.add_argument('--record', type=Path,
                        default=ROOT / f'work_dirs/{name}.jsonl')  # fmt: skip
    parser.add_argument('--out', type=Path, default=ROOT / f'benchmarks/{name}.md')
    parser.add_argument('--limit', type=float, default=limit, help='seconds for a pair')
    parser.add_argument('--fresh', action='store_true', help='forget the record')
    parser.add_argument('--cells', nargs='+', help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = matrix_parser(__doc__, 'detector_matrix', 300).parse_args()
    if args.cells:
        try_cells(args.record, args.cells[0], args.cells[1:], args.limit)
        return
    if args.fresh:
        args.record.unlink(missing_ok=True)
    cells = [(d, b) for d in args.detectors for b in args.backbones]
    worker = [sys.executable, __file__, '--record', str(args.record),
              '--limit', str(args.limit)]  # fmt: skip
    for entry in fill(args.record, cells, args.limit, worker):
        state = entry.get('reason') or f'works, {entry["seconds"]} s'
        print(f'{entry["detector"]}, {entry["backbone"]}: {state}', flush=True)
    command = 'python tools/upkeep/detector_matrix.py'
    args.out.write_text(page(args.record, cells, command))
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run(main))
