"""Speed of exported detectors against mmdet as it comes, on one CPU thread.

  python benchmarks/deployed.py [yolox] [rtmdet] [faster-rcnn] [dino] [res2net]
                                [--rounds 7] [-o deployed.md]

From a decoded image of 800 x 800 pixels, synthetic, to boxes in its pixels, by
detectors that see 640 x 640: resizing, net, decoding and suppression are in the time of
all. Random weights whose scores are stretched, equal for all who are compared; each
export is proven equal, or its difference stated, by the export itself. Each round runs
everybody once, each round in another order, in one process; figures are medians.
What bf16 and int8 cost is not measured: nothing is trained. `res2net`: the backbone
Res2Net-50 26w-4s alone, timm's and ours with its weights, one image of 640 x 640.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from speed import CHANNELS_LAST, difference, images, inference, report, res2nets
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools' / 'upkeep'))

from stretched import as_trained

from mmdet_backbones.deploy.evidence import blocks
from mmdet_backbones.deploy.exporting import export_with_figures
from mmdet_backbones.deploy.intake import set_size
from mmdet_backbones.deploy.options import ExportOptions
from mmdet_backbones.detector_config.tree import dataset_of
from mmdet_backbones.errors import UserError
from mmdet_backbones.inference.fusion import fuse_for_inference
from mmdet_backbones.predict.locating import find_trained
from mmdet_backbones.predict.torch_detector import TorchDetector
from mmdet_backbones.runtime import load
from mmdet_backbones.speed.nets import PreparedNet, Settings
from mmdet_backbones.speed.timing import time_rounds

SIZE = (640, 640)
# The layers of the heads are fitted to images of this size, which takes less time.
FITTED = (320, 320)
IMAGE = (800, 800)
DETECTORS = {
    'yolox': ('YOLOX-s', 'yolox/yolox_s_8xb8-300e_coco.py'),
    'rtmdet': ('RTMDet-s', 'rtmdet/rtmdet_s_8xb32-300e_coco.py'),
    'faster-rcnn': ('Faster R-CNN R-50', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    'dino': ('DINO R-50', 'dino/dino-4scale_r50_8xb2-12e_coco.py'),
}
EXPORTS = (
    ('onnxruntime', 'onnx', 'fp32'),
    ('OpenVINO fp32', 'openvino', 'fp32'),
    ('OpenVINO bf16', 'openvino', 'bf16'),
    ('OpenVINO int8', 'openvino', 'int8'),
)


def detector(key: str, rounds: int, peak: float) -> list[str]:
    """The section of one detector."""
    from mmengine.config import Config

    name, base = DETECTORS[key]
    image = np.random.default_rng(0).integers(0, 255, (*IMAGE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        path, _ = Config._get_cfg_path(f'mmdet::{base}', '')
        config = Config.fromfile(path)
        set_size(config, SIZE)
        set_data(config, folder)
        trained = as_trained(config, folder, FITTED)
        subjects = [
            finding(
                'mmdet as it comes', TorchDetector(find_trained(str(trained))), image
            ),
            finding('ours, torch, folded', folded(trained), image),
        ]
        notes = []
        for subject in exported(trained, folder, image):
            (notes if isinstance(subject, str) else subjects).append(subject)
        lines = table(subjects, rounds, 'mmdet')
    return [f'## {name}', '', *lines, *(f'- {note}' for note in notes), '']


def set_data(config: Any, folder: Path) -> None:
    """Let a config train and test on eight synthetic images, for what is calibrated."""
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    generator = np.random.default_rng(1)
    for number in range(8):
        Image.fromarray(blocks(IMAGE, number)).save(folder / f'{number}.png')
    places = generator.integers(0, IMAGE[0] - 100, (8, 2))
    content = dict(
        images=[
            dict(id=n, file_name=f'{n}.png', height=IMAGE[0], width=IMAGE[1])
            for n in range(8)
        ],
        annotations=[
            dict(id=n + 1, image_id=n, category_id=n, bbox=[int(x), int(y), 100, 100],
                 area=10000, iscrowd=0)
            for n, (x, y) in enumerate(places)
        ],
        categories=[dict(id=n, name=name) for n, name in enumerate(names)],
    )  # fmt: skip
    path = folder / 'synthetic.json'
    path.write_text(json.dumps(content))
    for split in ('train', 'val', 'test'):
        dataset = dataset_of(config, split)
        dataset.update(data_root='', ann_file=str(path))
        dataset.data_prefix = dict(img=f'{folder}/')
    config.val_evaluator.ann_file = config.test_evaluator.ann_file = str(path)


def finding(name: str, detector: Any, image: np.ndarray) -> PreparedNet:
    # The number of parameters is not asked for.
    return PreparedNet(name, nn.Identity(), lambda: detector.predict([image]))


def folded(trained: Path) -> TorchDetector:
    found = TorchDetector(find_trained(str(trained)))
    found.model.to(memory_format=CHANNELS_LAST)
    found.model = fuse_for_inference(found.model, inplace=True)
    return found


def exported(
    trained: Path, folder: Path, image: np.ndarray
) -> Iterator[PreparedNet | str]:
    """Each export ready to run, and what its proof says or why it is missing."""
    for name, format, precision in EXPORTS:
        out = folder / name.replace(' ', '-')
        options = ExportOptions(
            str(trained), out, format, precision, size=SIZE, force=True
        )
        try:
            done = export_with_figures(options)
        except UserError as error:
            yield f'{name}: {" ".join(str(error).split())}'
            continue
        yield f'{name}: {"; ".join((str(done.comparison), *done.notes))}'
        yield finding(name, load(out, threads=1), image)


def table(subjects: Sequence[PreparedNet], rounds: int, first: str) -> list[str]:
    times = time_rounds(subjects, Settings(rounds=rounds))
    lines = [f'| engine | ms | {first} / this |', '|---|---|---|']
    for subject, seconds in zip(subjects, times, strict=True):
        ratio = statistics.median(a / b for a, b in zip(times[0], seconds, strict=True))
        milliseconds = 1000 * statistics.median(seconds)
        lines.append(f'| {subject.name} | {milliseconds:.1f} | {ratio:.2f} |')
    return [*lines, '']


def res2net(rounds: int, peak: float) -> list[str]:
    """The section of the backbone alone."""
    peer, _, ours = res2nets('res2net50_26w_4s')
    x, last = images(1, SIZE[0]), images(1, SIZE[0], last=True)
    fast = fuse_for_inference(ours().to(memory_format=CHANNELS_LAST))
    plain = fuse_for_inference(ours())
    peer.eval()
    with tempfile.TemporaryDirectory() as given, torch.no_grad():
        subjects = [
            inference('timm', peer, x),
            inference('ours, channels-last, folded', fast, last),
        ]
        for name, net in (('timm', peer), ('ours, folded', plain)):
            path = Path(given) / f'{name}.onnx'
            torch.onnx.export(net, (x,), path, dynamo=True, verbose=False)
            subjects += [
                PreparedNet(f'{name}, onnxruntime', net, onnx_step(path, x.numpy())),
                PreparedNet(f'{name}, OpenVINO fp32', net, vino_step(path, x.numpy())),
            ]
        text = difference(subjects[0].step(), subjects[1].step())
        lines = table(subjects, rounds, 'timm')
    return ['## Res2Net-50 26w-4s alone', '', *lines, f'{text}, folded, of timm.', '']


def onnx_step(path: Path, x: np.ndarray) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    given = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, given)


def vino_step(path: Path, x: np.ndarray) -> Callable[[], Any]:
    import openvino

    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    compiled = openvino.compile_model(str(path), 'CPU', settings)
    return lambda: compiled([x])


PARTS = {key: partial(detector, key) for key in DETECTORS} | dict(res2net=res2net)


if __name__ == '__main__':
    report('Speed of exported detectors', PARTS, str(__doc__))
