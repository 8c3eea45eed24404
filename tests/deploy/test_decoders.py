"""One-stage detectors as one graph, equal to mmdet's own predict."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detector_matrix import DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from stretched import detect, stretched

from mmdet_backbones.check.trial import random_detector
from mmdet_backbones.deploy.decoding import decoder_of
from mmdet_backbones.deploy.equality import Bounds, compare
from mmdet_backbones.deploy.evidence import blocks
from mmdet_backbones.deploy.graph import DetectorGraph, ImageRules
from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime.detections import Detections

CANVAS = (128, 160)
# The second is smaller, so that padding and sizes matter.
SIZES = (CANVAS, (100, 130))
R18 = dict(
    type='mmdet_backbones.ResNet', depth=18, base_channels=16,
    out_strides=(4, 8, 16, 32),
)  # fmt: skip
DEEP = dict(R18, out_strides=(8, 16, 32))
WIDTHS = [16, 32, 64, 128]
# Backbone and neck's in_channels, with which the config of mmdet is small.
SMALL = {
    'RetinaNet': (R18, WIDTHS),
    'FCOS': (R18, WIDTHS),
    'ATSS': (R18, WIDTHS),
    'GFL': (R18, WIDTHS),
    'TOOD': (R18, WIDTHS),
    'YOLOv3': (DEEP, [128, 64, 32]),
    'YOLOX': (DEEP, WIDTHS[1:]),
    'RTMDet': (DEEP, WIDTHS[1:]),
    'YOLOF': (dict(R18, out_strides=(32,)), 128),
}
QUICK = ('YOLOX',)


def small(name: str) -> Config:
    path, _ = Config._get_cfg_path(f'mmdet::{DETECTORS[name]}', '')
    config = Config.fromfile(path)
    backbone, channels = SMALL[name]
    config.model.backbone = backbone
    config.model.neck.in_channels = channels
    return config


def graph_of(detector) -> DetectorGraph:
    given = detector.data_preprocessor
    rules = ImageRules(
        order='RGB' if given._channel_conversion else 'BGR',
        fill=(given.pad_value,) * 3,
    )
    if given._enable_normalize:
        values = (tuple(v.flatten().tolist()) for v in (given.mean, given.std))
        rules = replace(rules, **dict(zip(('mean', 'std'), values, strict=True)))
    return DetectorGraph(detector, decoder_of(detector), rules).eval()


def batch_of(images) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.zeros((len(images), *CANVAS, 3), np.uint8)
    for place, image in zip(pixels, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    sizes = torch.tensor([image.shape[:2] for image in images])
    return torch.from_numpy(pixels), sizes


@pytest.mark.parametrize(
    'name',
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL],
)
def test_the_graph_finds_what_mmdet_finds(name):
    detector = stretched(small(name), CANVAS)
    images = [blocks(size, seed) for seed, size in enumerate(SIZES)]
    expected = detect(detector, images, CANVAS)
    graph = graph_of(detector)
    with torch.no_grad():
        boxes, scores, labels = graph(*batch_of(images))
    limits = graph.decoder.limits
    exported = [
        detections(
            *(part[number][labels[number] >= 0] for part in (boxes, scores, labels))
        )
        for number in range(len(images))
    ]
    reference = [detections(f.bboxes, f.scores, f.labels) for f in expected]
    bounds = Bounds(nms_iou=limits.nms_iou, count=limits.max_per_image)
    comparison = compare(reference, exported, 0.0, bounds)
    assert comparison.equal, comparison
    assert comparison.boxes > 40
    assert comparison.ties == 0
    assert (scores[:, :-1] >= scores[:, 1:]).all()


def detections(boxes, scores, labels) -> Detections:
    parts = (part.detach().numpy() for part in (boxes, scores, labels))
    return Detections(*parts, ())


@pytest.mark.slow
def test_ssd_finds_what_mmdet_finds():
    path, _ = Config._get_cfg_path('mmdet::ssd/ssd300_coco.py', '')
    model = Config.fromfile(path).model
    model.test_cfg.score_thr = 0.0
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = random_detector(model)
    detector.eval()
    for name, layer in detector.bbox_head.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            # Its maps have a norm of 20, with which softmax is 0 or 1.
            layer.weight.data.mul_(0.02 if 'cls' in name else 0.05)
    image = blocks((300, 300), 0)
    (expected,) = detect(detector, [image])
    graph = graph_of(detector)
    with torch.no_grad():
        found = graph(torch.from_numpy(image[None]), torch.tensor([[300, 300]]))
    limits = graph.decoder.limits
    comparison = compare(
        [detections(expected.bboxes, expected.scores, expected.labels)],
        [detections(*(part[0] for part in found))],
        0.0,
        Bounds(nms_iou=limits.nms_iou, count=limits.max_per_image),
    )
    assert comparison.equal, comparison
    assert comparison.boxes == limits.max_per_image


def test_what_no_graph_can_is_refused_with_all_lines_to_write():
    config = small('RetinaNet')
    config.model.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)
    config.model.test_cfg.min_bbox_size = 4
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = random_detector(config.model)
    with pytest.raises(UserError) as told:
        decoder_of(detector)
    assert "model.test_cfg.nms.type = 'nms'" in str(told.value)
    assert 'model.test_cfg.min_bbox_size = 0' in str(told.value)
