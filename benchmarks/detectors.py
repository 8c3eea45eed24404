"""Losses, gradients and predictions of mmdet's own detectors, to compare operators.

Run it once with compiled mmcv and once without, then compare:
  python benchmarks/detectors.py run compiled.json     (where mmcv is compiled)
  python benchmarks/detectors.py run lite.json         (where it is not)
  python benchmarks/detectors.py compare compiled.json lite.json -o detectors.md
Weights and images are random, from seed 0; the images are synthetic.
"""

import argparse
import importlib.machinery
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from rich.progress import track

import mmdet_backbones  # noqa: F401

CONFIGS = {
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'YOLOv3': 'yolo/yolov3_d53_8xb8-ms-608-273e_coco.py',
    'YOLOX': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}


def operators() -> str:
    """Say whose operators run here."""
    found = importlib.machinery.PathFinder.find_spec('mmcv._ext', mmcv.__path__)
    if found is not None:
        return f'compiled mmcv {mmcv.__version__}'
    try:
        name = f'mmcv-lite {version("mmcv-lite")}'
    except PackageNotFoundError:
        name = f'onedl-mmcv {version("onedl-mmcv")}'
    return f'{name} with torchvision and torch'


def measure(config: str) -> dict[str, Any]:
    """Run one loss, backward and predict of a detector."""
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules()
    # YOLOX's multi-scale training asks for the number of the iteration.
    MessageHub.get_current_instance().update_info('iter', 0)
    path, _ = Config._get_cfg_path(f'mmdet::{config}', '')
    cfg = Config.fromfile(path).model
    cfg.backbone.init_cfg = None
    # Untrained scores are low; without a threshold there is something to compare.
    test_cfg = cfg.test_cfg.get('rcnn', cfg.test_cfg)
    if 'score_thr' in test_cfg:
        test_cfg.score_thr = 0.0
    torch.manual_seed(0)
    detector = MODELS.build(cfg)
    detector.init_weights()
    shapes = [[3, 192, 256], [3, 160, 224]]
    batch = demo_mm_inputs(2, shapes, num_items=[6, 4], num_classes=80)
    torch.manual_seed(0)
    prepared = detector.data_preprocessor(batch, True)
    losses = detector.forward(**prepared, mode='loss')
    total, _ = detector.parse_losses(losses)
    total.backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    detector.eval()
    with torch.no_grad():
        prepared = detector.data_preprocessor(batch, False)
        results = detector.forward(**prepared, mode='predict')
    instances = [result.pred_instances for result in results]
    return {
        'loss': total.item(),
        'gradient': torch.stack([g.double().norm() for g in gradients]).norm().item(),
        'detections': sum(len(i) for i in instances),
        'scores': sum(i.scores.double().sum().item() for i in instances),
        'boxes': sum(i.bboxes.double().sum().item() for i in instances),
    }


def run(out: Path) -> None:
    torch.set_num_threads(1)
    results = {name: measure(CONFIGS[name]) for name in track(CONFIGS)}
    stack = {'operators': operators(), 'torch': torch.__version__}
    stack |= {'mmengine': mmengine.__version__}
    out.write_text(json.dumps({'stack': stack, 'results': results}, indent=2))


def compare(first: Path, second: Path, out: Path | None) -> None:
    a, b = (json.loads(path.read_text()) for path in (first, second))
    lines = [
        '# Detectors of mmdet with compiled operators and without',
        '',
        f'A: {a["stack"]["operators"]}, B: {b["stack"]["operators"]}; torch '
        f'{a["stack"]["torch"]}, one thread, random weights and synthetic images from '
        'seed 0. Written by `benchmarks/detectors.py`.',
        '',
        '| detector | figure | A | B | difference |',
        '|---|---|---|---|---|',
    ]
    for name, figures in a['results'].items():
        for figure, value in figures.items():
            other = b['results'][name][figure]
            delta = f'{abs(value - other):.2g}' if value != other else '0'
            lines.append(f'| {name} | {figure} | {value!r} | {other!r} | {delta} |')
    text = '\n'.join(lines) + '\n'
    if out is None:
        print(text)
    else:
        out.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = parser.add_subparsers(dest='job', required=True)
    jobs.add_parser('run').add_argument('out', type=Path)
    both = jobs.add_parser('compare')
    both.add_argument('first', type=Path)
    both.add_argument('second', type=Path)
    both.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    if args.job == 'run':
        run(args.out)
    else:
        compare(args.first, args.second, args.out)


if __name__ == '__main__':
    main()
