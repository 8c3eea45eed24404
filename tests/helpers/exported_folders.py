"""Synthetic exported folders: a small real net that finds bright rectangles.

Its graph keeps the contract of exported detectors: images of bytes and their sizes in,
boxes, scores and labels of a fixed number out. Label 0 is upright, 1 is wide.
"""

import functools
import hashlib
import io
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

CELL = 4
MOST = 20
FILES = {
    'onnx': ('model.onnx',),
    'openvino': ('model.xml', 'model.bin'),
    'torch': ('model.pt2',),
    'tensorrt': ('model.engine',),
}


class BrightRectangles(nn.Module):
    """Finds rectangles of more than half brightness by their upper left corners."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Conv2d(3, 1, CELL, CELL, bias=False)
        nn.init.constant_(self.pool.weight, 1 / (3 * 255 * CELL**2))

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float()
        rows, columns = (torch.arange(side) for side in images.shape[1:3])
        inside = (rows[:, None] < sizes[:, 0, None, None]) & (
            columns < sizes[:, 1, None, None]
        )
        mean = self.pool(pixels * inside[:, None])[:, 0]
        bright = mean > 0.5
        row, column = (torch.arange(side) for side in mean.shape[1:])
        right = _next_dark(bright, column)
        bottom = _next_dark(bright.transpose(1, 2), row).transpose(1, 2)
        before = pad(bright[:, :, :-1].float(), (1, 0)) > 0
        above = pad(bright[:, :-1].float(), (0, 0, 1, 0)) > 0
        corners = [(column + 0 * row[:, None]), (row[:, None] + 0 * column)]
        boxes = torch.stack(
            [*(part.expand_as(right) for part in corners), right, bottom], -1
        )
        boxes = pad(boxes.flatten(1, 2) * CELL, (0, 0, 0, MOST)).float()
        scores = pad((mean * (bright & ~before & ~above)).flatten(1), (0, MOST))
        scores, best = scores.topk(MOST, 1)
        boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        boxes = torch.minimum(boxes, sizes.flip(1).repeat(1, 2)[:, None].float())
        wide = boxes[..., 2] - boxes[..., 0] > boxes[..., 3] - boxes[..., 1]
        found = scores > 0
        labels = torch.where(found, wide.long(), -1)
        return boxes * found[..., None], scores, labels


def _next_dark(bright: Tensor, places: Tensor) -> Tensor:
    later = ~bright[:, :, None, :] & (places >= places[:, None])
    return torch.where(later, places, places.shape[0]).amin(-1)


@functools.cache
def _program() -> torch.export.ExportedProgram:
    any_side = torch.export.Dim.AUTO
    return torch.export.export(
        BrightRectangles().eval(),
        _example(),
        dynamic_shapes=(dict.fromkeys(range(3), any_side), {0: any_side}),
    )


def _example() -> tuple[Tensor, Tensor]:
    images = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    return images, torch.tensor([[64, 96], [64, 80]])


@functools.cache
def _onnx(batch: int | None, height: int | None, width: int | None) -> bytes:
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # The old exporter is ten times as fast, and what runs the graph is tested.
        torch.onnx.export(
            BrightRectangles().eval(),
            _example(),
            buffer,
            input_names=['images', 'sizes'],
            output_names=['boxes', 'scores', 'labels'],
            dynamic_axes={'images': {0: 'n', 1: 'h', 2: 'w'}, 'sizes': {0: 'n'}},
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    for value in model.graph.input:
        for dim, fixed in zip(
            value.type.tensor_type.shape.dim, (batch, height, width), strict=False
        ):
            if fixed is not None and dim.dim_param:
                dim.dim_value = fixed
    onnx.checker.check_model(model)
    return model.SerializeToString()


@functools.cache
def model_files(
    kind: str, batch: int | None, height: int | None, width: int | None
) -> dict[str, bytes]:
    """Export the synthetic net; once in a process for each kind and size."""
    if kind == 'onnx':
        return {'model.onnx': _onnx(batch, height, width)}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if kind == 'torch':
            torch.export.save(_program(), str(folder / 'model.pt2'))
        elif kind == 'openvino':
            import openvino

            (folder / 'model.onnx').write_bytes(_onnx(batch, height, width))
            model = openvino.Core().read_model(folder / 'model.onnx')
            openvino.save_model(model, folder / 'model.xml', compress_to_fp16=False)
        else:
            (folder / 'model.engine').write_bytes(b'synthetic, no engine')
        return {name: (folder / name).read_bytes() for name in FILES[kind]}


def describe(files: dict[str, bytes], kind: str = 'onnx', **changes: dict) -> dict:
    """Give the ``detector.json`` of a folder; dicts of ``changes`` are merged."""
    content = dict(
        format_version=1,
        format=kind,
        precision='fp32',
        files={
            name: dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
            for name, data in files.items()
        },
        classes=['upright', 'wide'],
        input=dict(name='images', batch=None, height=None, width=None, dtype='uint8',
                   layout='NHWC', order='RGB'),
        resize=dict(height=64, width=96, keep_ratio=True, interpolation='bilinear',
                    pad_value=114, pad=False, size_divisor=8),
        normalisation=dict(mean=[0.0] * 3, std=[255.0] * 3, order='RGB'),
        outputs=['boxes', 'scores', 'labels'],
        max_per_image=MOST,
        thresholds=dict(score=0.5, nms_iou=None),
        detector='synthetic',
        backbone='one convolution',
        weights_licence=None,
        versions=dict(mmdet_backbones='0.1.0'),
        source=dict(config='none.py', checkpoint='none.pth', checkpoint_sha256='0'),
        max_difference=dict(box_iou=1.0, score=0.0),
    )  # fmt: skip
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value
    return content


def write_exported(folder: Path, kind: str = 'onnx', **changes: dict) -> Path:
    """Write an exported folder of the synthetic net.

    Args:
        folder: Made if it is not there.
        kind: ``'onnx'``, ``'openvino'``, ``'torch'`` or ``'tensorrt'``.
        changes: Keys of ``detector.json``; ``input`` also fixes sizes of the graph.
    """
    fixed = changes.get('input', {})
    files = model_files(kind, *(fixed.get(k) for k in ('batch', 'height', 'width')))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    content = describe(files, kind, **changes)
    (folder / 'detector.json').write_text(json.dumps(content, indent=1))
    return folder


def draw(
    height: int, width: int, *boxes: tuple[int, int, int, int], grey: int = 200
) -> np.ndarray:
    """Draw bright rectangles (x1, y1, x2, y2) on black, each darker than the last."""
    image = np.zeros((height, width, 3), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        image[top:bottom, left:right] = grey - 10 * number
    return image
