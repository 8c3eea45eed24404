"""Speed of mmdet's detectors made fast, and of memory formats, on one CPU thread.

  python benchmarks/speed_detectors.py [detectors] [formats] [--rounds 7]
                                       [-o speed_detectors.md]

Random weights from seed 0, equal for all who are compared; synthetic images; each round
runs everybody once, each round in another order. `detectors`: mmdet's detectors as they
come against the same ones made fast, predictions of one image of 640 x 640. `formats`:
nets with channels-last against contiguous weights and images, two of 320 x 320.
"""

import statistics
from typing import Any

import torch
from speed import CHANNELS_LAST, images, inference, report, rows, table, training

from mmdet_backbones.inference.fusion import fuse_for_inference
from mmdet_backbones.registry import MODELS
from mmdet_backbones.speed.nets import PreparedNet, Settings
from mmdet_backbones.speed.timing import time_rounds

DETECTORS = {
    'Faster R-CNN R-50 FPN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'YOLOX-s': 'yolox/yolox_s_8xb8-300e_coco.py',
}
FORMATS = (
    'res2net50_26w_4s',
    'res2next50',
    'timm/resnet50',
    'timm/resnext50_32x4d',
    'timm/regnetx_032',
    'timm/efficientnet_lite0',
    'timm/mobilenetv3_large_100',
    'timm/convnext_tiny',
    'mmpretrain/shufflenet-v2-1x',
    'mmpretrain/swin-tiny',
)


def detectors(rounds: int, peak: float) -> list[str]:
    lines = ['## Detectors', '']
    for name, config in DETECTORS.items():
        nets = [
            predicting('mmdet as it comes', config),
            predicting('channels-last', config, last=True),
            predicting('channels-last, folded', config, last=True, fuse=True),
            predicting('channels-last, folded, compiled', config, True, True, True),
        ]
        lines += [f'### {name}', '', *table(rows(nets, 1, rounds), peak)]
    return lines


def predicting(
    name: str,
    config: str,
    last: bool = False,
    fuse: bool = False,
    compile: bool = False,
) -> PreparedNet:
    from mmdet.registry import MODELS as HOST
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    path, _ = Config._get_cfg_path(f'mmdet::{config}', '')
    model = Config.fromfile(path).model
    model.backbone.init_cfg = None
    torch.manual_seed(0)
    net: Any = HOST.build(model)
    net.init_weights()
    net.eval()
    if last:
        net.to(memory_format=CHANNELS_LAST)
    if fuse:
        net = fuse_for_inference(net, compile=compile)
    data = net.data_preprocessor(demo_mm_inputs(1, [[3, 640, 640]]), False)

    def step() -> Any:
        with torch.inference_mode():
            return net(**data, mode='predict')

    return PreparedNet(name, net, step)


def formats(rounds: int, peak: float) -> list[str]:
    from mmdet_backbones.catalog import resolve

    lines = ['## Memory formats', '']
    lines += ['Contiguous / channels-last; above 1, channels-last is faster.', '']
    lines += ['| net | inference | training step |', '|---|---|---|']
    for name in FORMATS:
        cells = []
        for make in (inference, training):
            nets = []
            for last in (False, True):
                net = MODELS.build(resolve(name))
                if last:
                    net.to(memory_format=CHANNELS_LAST)
                nets.append(make(str(last), net, images(2, 320, last)))
            plain, other = time_rounds(nets, Settings(rounds=rounds))
            cells.append(f'{statistics.median(plain) / statistics.median(other):.2f}')
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return [*lines, '']


PARTS = dict(detectors=detectors, formats=formats)


if __name__ == '__main__':
    report('Speed of detectors and memory formats', PARTS, str(__doc__))
