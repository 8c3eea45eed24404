"""Detectors with proposals or queries as one graph, equal to mmdet's own predict."""

import numpy as np
import pytest
import torch
from mmdet.models import DINO
from mmdet.models.roi_heads import DoubleHeadRoIHead
from small_two_stage import CONFIGS, SIZE, small_detector
from stretched import detect
from test_decoders import detections, graph_of

from mmdet_backbones.deploy import formats
from mmdet_backbones.deploy.decoding import decoder_of
from mmdet_backbones.deploy.equality import Bounds, compare
from mmdet_backbones.errors import UserError

QUICK = ('Faster R-CNN', 'DINO')
# The second is smaller in both directions, so that masks and clipping matter.
SIZES = (SIZE, (100, 130))


def noise(sizes, seed=0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        np.kron(
            generator.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3)),
            np.ones((4, 4, 1)),
        )[:height, :width].astype(np.uint8)
        for height, width in sizes
    ]


def batch_of(images, canvas=SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.zeros((len(images), *canvas, 3), np.uint8)
    for place, image in zip(pixels, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(pixels), torch.tensor([i.shape[:2] for i in images])


def assert_equal(expected, found, limits, least) -> None:
    _, scores, labels = found
    exported = [
        detections(*(part[number][labels[number] >= 0] for part in found))
        for number in range(len(labels))
    ]
    reference = [detections(f.bboxes, f.scores, f.labels) for f in expected]
    bounds = Bounds(nms_iou=limits.nms_iou, count=limits.max_per_image)
    comparison = compare(reference, exported, 0.0, bounds)
    assert comparison.equal, comparison
    assert comparison.ties == 0, comparison
    assert comparison.largest_corner < 1e-2
    assert comparison.boxes >= least
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize(
    'name',
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS],
)
def test_the_graph_finds_what_mmdet_finds(name):
    detector = small_detector(name)
    weights = {key: value.clone() for key, value in detector.state_dict().items()}
    images = noise(SIZES)
    graph = graph_of(detector)
    with torch.no_grad():
        found = graph(*batch_of(images))
        expected = detect(detector, images, SIZE)
    assert_equal(expected, found, graph.decoder.limits, least=40)
    after = detector.state_dict()
    assert weights.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in weights.items())


def test_proposals_that_fill_up_are_no_boxes():
    # So that a hundred are never found, and one without a score would be a box.
    detector = small_detector('Faster R-CNN', max_per_img=400)
    detector.rpn_head.test_cfg.nms.iou_threshold = 0.05
    detector.roi_head.test_cfg.score_thr = 0.0
    images = noise(SIZES)
    graph = graph_of(detector)
    with torch.no_grad():
        pixels, sizes = batch_of(images)
        features = detector.extract_feat(graph.preprocessing(pixels, sizes))
        _, there = graph.decoder.proposals(features, sizes)
        found = graph(pixels, sizes)
        expected = detect(detector, images, SIZE)
    assert 0 < there.sum(1).max() < 100
    assert_equal(expected, found, graph.decoder.limits, least=100)


def test_regions_of_all_levels_are_pooled_as_mmdet_pools_them():
    detector = small_detector('Faster R-CNN', fit=False)
    extractor = detector.roi_head.bbox_roi_extractor
    features = [torch.randn(2, 32, 128 // s, 160 // s) for s in (4, 8, 16, 32)]
    corner = torch.rand(2, 50, 2) * 80
    sides = 2 ** (7.2 * torch.rand(2, 50, 1)) * (0.7 + 0.5 * torch.rand(2, 50, 2))
    ends = torch.minimum(corner + sides, torch.tensor([160.0, 128.0]))
    boxes = torch.cat((corner, ends), -1)
    images = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 50, 1)
    rois = torch.cat((images, boxes), -1).flatten(0, 1)
    assert len(extractor.map_roi_levels(rois, 4).unique()) == 4
    found = decoder_of(detector).pooling[0](features, boxes)
    torch.testing.assert_close(found, extractor(features, rois))


def test_detectors_that_go_another_way_are_refused_with_all_that_differs():
    detector = small_detector('Faster R-CNN', fit=False)
    detector.roi_head.__class__ = DoubleHeadRoIHead
    detector.roi_head.bbox_roi_extractor.roi_layers[1].pool_mode = 'max'
    detector.roi_head.bbox_head.bbox_coder.clip_border = False
    del detector.rpn_head
    with pytest.raises(UserError) as told:
        decoder_of(detector)
    assert 'model.roi_head is DoubleHeadRoIHead' in str(told.value)
    assert 'model.rpn_head is NoneType' in str(told.value)
    assert "pool_mode is 'max'" in str(told.value)
    assert 'clip_border' in str(told.value)


def test_queries_chosen_another_way_are_refused():
    class Own(DINO):
        def pre_decoder(self, *args, **kwargs):
            raise NotImplementedError

    detector = small_detector('DINO', fit=False)
    detector.__class__ = Own
    with pytest.raises(UserError, match='Own with the head DINOHead cannot be exp'):
        decoder_of(detector)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['DINO', 'Deformable DETR, two stages', 'Mask R-CNN'])
def test_half_precision_finds_nearly_the_same(name):
    detector = small_detector(name)
    images = noise(SIZES)
    graph = graph_of(detector)
    with torch.no_grad():
        best = graph(*batch_of(images))[1][:, 0]
        graph.detector.half()
        graph.half_net = True
        found = graph(*batch_of(images))
    assert [part.dtype for part in found[:2]] == [torch.float32] * 2
    assert torch.allclose(found[1][:, 0], best, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'dynamic'),
    [
        ('DINO', False),
        ('Deformable DETR, two stages', False),
        ('Cascade R-CNN', False),
        ('Conditional DETR', True),
        ('Faster R-CNN', True),
    ],
)
def test_other_engines_find_the_same(name, dynamic, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    openvino = pytest.importorskip('openvino')
    detector = small_detector(name)
    graph = graph_of(detector)
    program = formats.export_program(graph, SIZE, 2, 32 if dynamic else None)
    formats.write_onnx(program, tmp_path / 'model.onnx')
    session = onnxruntime.InferenceSession(str(tmp_path / 'model.onnx'))
    hint = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.compile_model(str(tmp_path / 'model.onnx'), 'CPU', hint)
    batches = [(SIZES, SIZE)]
    if dynamic:
        batches.append((((90, 200), (96, 224), (64, 128)), (96, 224)))
    for sizes, canvas in batches:
        images = noise(sizes)
        pixels, valid = batch_of(images, canvas)
        with torch.no_grad():
            expected = detect(detector, images, canvas)
        given = dict(images=pixels.numpy(), sizes=valid.numpy())
        for outputs in (session.run(None, given), compiled(given).to_tuple()):
            found = [torch.from_numpy(np.array(part)) for part in outputs]
            assert_equal(expected, found, graph.decoder.limits, least=40)
