"""Write the learning rates of docs/several_gpus.md, with tools/print_lr.py.

    python benchmarks/distributed_rates.py

One config for each detector; the table between the two marks is replaced.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / 'docs' / 'several_gpus.md'
START = '<!-- rates: written by benchmarks/distributed_rates.py -->'
END = '<!-- end of rates -->'
GPUS = (1, 2, 4, 8, 64)
CONFIGS = {
    'YOLOX': 'yolox/yolox-s_shufflenet-v2-1x_8xb8-300e_coco.py',
    'YOLOv3': 'yolov3/yolov3_res2net-50-26w-4s_8xb8-ms-608-273e_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_resnet-50_dc5_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_res2net-50-26w-4s_fpn_1x_coco.py',
    'Cascade R-CNN, AdamW': 'cascade_rcnn/cascade-rcnn_swin-tiny_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_shufflenet-v2-1x_fpn_1x_coco.py',
    'RTMDet': 'rtmdet/rtmdet-tiny_shufflenet-v2-1x_8xb32-300e_coco.py',
    'DINO': 'dino/dino-4scale_resnet-50_8xb2-12e_coco.py',
}


def read_rates(name: str) -> list[dict[str, Any]]:
    """Ask the tool, as a user would."""
    done = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'print_lr.py')),
            *(str(ROOT / 'configs' / name), '--json', '--gpus', *map(str, GPUS)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def formula(row: dict[str, Any], at_base: float) -> float:
    """The rule, from its numbers and not through the package."""
    ratio = row['batch_size'] / row['base']
    return at_base * (math.sqrt(ratio) if row['rule'] == 'sqrt' else ratio)


def table(rates: dict[str, list[dict[str, Any]]]) -> str:
    """One line for each rate of each detector.

    Raises:
        ValueError: If a rate is not the one of the formula.
    """
    lines = [
        f'| detector | rate | rule, base | images per GPU | {" | ".join(f"{n} GPU" for n in GPUS)} |',  # noqa: E501
        f'|---|---|---|---|{"---|" * len(GPUS)}',
    ]
    for detector, rows in rates.items():
        per_gpu = rows[0]['batch_size'] // rows[0]['gpus']
        for key in rows[0]['rates']:
            at_base = rows[0]['rates'][key] / rows[0]['factor']
            for row in rows:
                if not math.isclose(row['rates'][key], formula(row, at_base)):
                    raise ValueError(f'{detector}: {row} against {at_base}')
            cells = ' | '.join(f'{row["rates"][key]:.6g}' for row in rows)
            name = key.removeprefix('optim_wrapper.optimizer.')
            lines.append(
                f'| {detector} | `{name}` | {rows[0]["rule"]}, {rows[0]["base"]} | '
                f'{per_gpu} | {cells} |'
            )
    return '\n'.join(lines)


def replace(text: str, rows: str, start: str = START, end: str = END) -> str:
    """Put a table between the two marks of a page."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f'{before}{start}\n\n{rows}\n\n{end}{after}'


def main() -> None:
    rates = {detector: read_rates(name) for detector, name in CONFIGS.items()}
    GUIDE.write_text(replace(GUIDE.read_text(), table(rates)))
    print(f'wrote {GUIDE.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
