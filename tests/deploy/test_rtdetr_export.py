"""RT-DETR as one graph, equal to its own predict, padded images included."""

import numpy as np
import pytest
import torch
from small_rtdetr import build
from stretched import detect
from test_decoders import graph_of
from test_two_stage import SIZES, assert_equal, batch_of, noise

from mmdet_backbones.deploy import formats

SIZE = SIZES[0]


def test_the_graph_finds_what_predict_finds():
    detector = build()
    images = noise(SIZES)
    graph = graph_of(detector)
    with torch.no_grad():
        found = graph(*batch_of(images))
        expected = detect(detector, images, SIZE)
    assert_equal(expected, found, graph.decoder.limits, least=40)


@pytest.mark.slow
def test_onnx_runtime_finds_the_same_at_any_size(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    detector = build()
    graph = graph_of(detector)
    program = formats.export_program(graph, SIZE, 2, 32)
    formats.write_onnx(program, tmp_path / 'model.onnx')
    session = onnxruntime.InferenceSession(str(tmp_path / 'model.onnx'))
    other = ((90, 200), (96, 224), (64, 128))
    for sizes, canvas in ((SIZES, SIZE), (other, (96, 224))):
        images = noise(sizes)
        pixels, valid = batch_of(images, canvas)
        with torch.no_grad():
            expected = detect(detector, images, canvas)
        outputs = session.run(None, dict(images=pixels.numpy(), sizes=valid.numpy()))
        found = [torch.from_numpy(np.array(part)) for part in outputs]
        assert_equal(expected, found, graph.decoder.limits, least=40)
