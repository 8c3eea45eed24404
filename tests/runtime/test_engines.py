"""Each format has its engine, which honours threads and refuses in one message."""

import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exported_folders import draw, write_exported

from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime import load

BOXES = (16, 8, 56, 24), (4, 40, 12, 60)
IMAGE = draw(64, 96, *BOXES)


@pytest.fixture
def folder(tmp_path):
    return write_exported(tmp_path / 'exported')


def damage(folder, name, data=b'nothing that an engine knows', **versions):
    """Write another file, with its true sum, and versions that it was written for."""
    (folder / name).write_bytes(data)
    content = json.loads((folder / 'detector.json').read_text())
    digest = hashlib.sha256(data).hexdigest()
    content['files'][name] = dict(sha256=digest, bytes=len(data))
    content['versions'] |= versions
    (folder / 'detector.json').write_text(json.dumps(content))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['openvino', 'torch'])
def test_every_engine_finds_the_same(tmp_path, kind):
    detector = load(write_exported(tmp_path / 'f', kind), threads=1, trust=True)
    images = [IMAGE, IMAGE.repeat(2, 0).repeat(2, 1), IMAGE[:48], draw(64, 96)]
    found = detector.predict(images)
    wanted = load(write_exported(tmp_path / 'o')).predict(images)
    for one, other in zip(found, wanted, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        # In bfloat16, which OpenVINO prefers, 4e-3.
        assert np.allclose(one.scores, other.scores, atol=1e-5)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.labels.dtype == np.int64


@pytest.mark.slow
def test_openvino_takes_graphs_of_one_size(tmp_path):
    fixed = dict(batch=2, height=64, width=96)
    detector = load(write_exported(tmp_path / 'f', 'openvino', input=fixed))
    for found in detector.predict([IMAGE] * 3):
        assert np.allclose(found.boxes, BOXES, atol=1e-3)


@pytest.mark.parametrize(
    'kind', ['onnx', pytest.param('openvino', marks=pytest.mark.slow)]
)
def test_threads_of_a_service_share_a_detector(tmp_path, kind):
    detector = load(write_exported(tmp_path / 'f', kind), threads=1)
    images = [IMAGE, IMAGE[:48], draw(64, 96), IMAGE.repeat(2, 0)] * 10
    wanted = detector.predict(images)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: detector.predict([image])[0], images))
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one.boxes, other.boxes)


def test_onnxruntime_gets_the_threads(folder):
    options = load(folder, threads=1)._engine._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.slow
def test_openvino_gets_the_threads(tmp_path):
    model = load(write_exported(tmp_path / 'f', 'openvino'), threads=1)._engine._model
    assert model.get_property('INFERENCE_NUM_THREADS') == 1


def test_a_folder_that_can_bring_code_needs_trust(tmp_path):
    folder = write_exported(tmp_path / 'f', 'tensorrt')
    damage(folder, 'model.pt2')
    text = (folder / 'detector.json').read_text()
    (folder / 'detector.json').write_text(text.replace('"tensorrt"', '"torch"'))
    with pytest.raises(UserError, match=r"write\n  load\('.*', trust=True\)"):
        load(folder)


def test_tensorrt_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'only NVIDIA.*Formats that run on any'):
        load(write_exported(tmp_path / 'f', 'tensorrt'))


@pytest.mark.parametrize('version', [None, '99.0'])
def test_a_net_that_onnxruntime_cannot_load_is_told(folder, version):
    versions = {} if version is None else {'onnxruntime': version}
    damage(folder, 'model.onnx', **versions)
    with pytest.raises(UserError, match='cannot load the net of') as error:
        load(folder)
    assert str(folder) in str(error.value)
    told = 'pip install onnxruntime==99.0' if version else 'Export the detector anew'
    assert told in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'name'), [('openvino', 'model.xml'), ('torch', 'model.pt2')]
)
def test_a_net_that_another_engine_cannot_load_is_told(tmp_path, kind, name):
    folder = damage(write_exported(tmp_path / 'f', kind), name)
    with pytest.raises(UserError, match=f'^{kind} .* cannot load the net of'):
        load(folder, trust=True)


def test_a_net_of_another_kind_is_told(folder):
    import onnx

    model = onnx.load(folder / 'model.onnx')
    model.graph.output[0].name = 'squares'
    model.graph.node[-1].output[0] = 'squares'
    damage(folder, 'model.onnx', model.SerializeToString())
    with pytest.raises(UserError, match='cannot load the net'):
        load(folder)


def test_a_net_that_gives_something_else_is_told(folder):
    import onnx

    other = {'boxes': 'scores', 'scores': 'boxes'}
    model = onnx.load(folder / 'model.onnx')
    for output in model.graph.output:
        output.name = other.get(output.name, output.name)
    for node in model.graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
        node.output[:] = [other.get(name, name) for name in node.output]
    damage(folder, 'model.onnx', model.SerializeToString())
    with pytest.raises(UserError, match=r'it gave \(1, 20\), \(1, 20, 4\)'):
        load(folder).predict([IMAGE])


def test_a_missing_engine_is_told(folder, monkeypatch):
    monkeypatch.setattr(sys, 'path', [])
    monkeypatch.setattr(sys, 'path_hooks', [])
    for name in [n for n in sys.modules if n.partition('.')[0] == 'onnxruntime']:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match='pip install onnxruntime'):
        load(folder)


def test_importing_the_runtime_is_cheap(run_python):
    code = (
        'import sys, time; start = time.process_time(); import numpy; '
        'here = time.process_time(); import mmdet_backbones.runtime; '
        'print(time.process_time() - here); '
        "print(sorted({'torch', 'cv2', 'PIL', 'onnxruntime', 'openvino', 'mmengine', "
        "'mmcv', 'mmdet', 'packaging', 'rich'} & set(sys.modules)))"
    )
    seconds, imported = run_python('-c', code).stdout.splitlines()
    assert float(seconds) < 0.3
    assert imported == '[]'


def test_the_first_image_comes_soon(folder):
    start = time.process_time()
    load(folder).predict([np.zeros((1200, 1600, 3), np.uint8)])
    assert time.process_time() - start < 2
