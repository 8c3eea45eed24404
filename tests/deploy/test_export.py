"""Whole exports: a folder that finds the same, or a message and no folder."""

import json
import re

import numpy as np
import pytest
from mmengine.config import Config
from squares import draw_squares, write_config
from stretched import as_trained
from test_decoders import small

from mmdet_backbones.cli.main import main
from mmdet_backbones.deploy.evidence import blocks
from mmdet_backbones.deploy.exporting import export, export_with_figures
from mmdet_backbones.deploy.options import ExportOptions
from mmdet_backbones.errors import UserError
from mmdet_backbones.predict import Detector
from mmdet_backbones.runtime import load

SIZE = (96, 96)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A YOLOX of random weights, as a training would leave it: config and folder."""
    folder = tmp_path_factory.mktemp('trained')
    return as_trained(small('YOLOX'), folder, SIZE)


def test_an_export_finds_what_the_detector_finds(trained, tmp_path, capsys):
    out = tmp_path / 'out'
    status = main(
        ['export', str(trained), '-o', str(out), '--size', '96', '96', '--json']
    )
    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert report['passed'] is True
    assert report['boxes'] > 40
    assert (report['missing'], report['extra'], report['ties']) == (0, 0, 0)
    assert report['largest_score'] < 1e-4
    assert 'synthetic' in report['compared_on']
    names = {path.name for path in out.iterdir()}
    assert names == {
        'model.onnx', 'detector.json', 'equality.md', 'example.py', 'example.cpp'
    }  # fmt: skip
    description = json.loads((out / 'detector.json').read_text())
    assert description['input']['height'] == 96
    assert description['detector'] == 'YOLOX'
    assert b'/site-packages/' not in (out / 'model.onnx').read_bytes()
    # Another image than those that were compared, of another size.
    image = blocks((150, 200), 7)
    (found,) = load(out).predict([image])
    (other,) = Detector.load(str(out)).predict([image])
    assert len(found.scores) > 20
    assert np.array_equal(found.boxes, other.boxes)
    # What is there is not overwritten without being asked.
    assert main(['export', str(trained), '-o', str(out)]) == 1
    assert '--force' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(format='tensorrt'), 'trtexec'),
        (dict(format='torch', precision='int8'), '--format onnx or openvino'),
        (dict(precision='bf16'), '--format openvino'),
        (dict(max_drop=2.0), '--max-drop'),
        (dict(size=(0, 5)), '--size'),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_built(tmp_path, settings, words):
    options = ExportOptions('no_such.py', tmp_path / 'out', **settings)
    with pytest.raises(UserError, match=words):
        export(options)
    assert not any(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    options = ExportOptions('no_such.py', tmp_path, force=True)
    with pytest.raises(UserError, match='something else'):
        export(options)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'
    (tmp_path / 'file').write_text('a')
    with pytest.raises(UserError, match='is a file'):
        export(ExportOptions('no_such.py', tmp_path / 'file', force=True))


def test_a_lower_precision_needs_a_data_set(trained, tmp_path):
    options = ExportOptions(str(trained), tmp_path / 'out', precision='fp16', size=SIZE)
    with pytest.raises(UserError, match='write --data FOLDER'):
        export(options)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_transform_without_a_counterpart_is_named(tmp_path):
    config = small('YOLOX')
    config.test_pipeline.insert(2, dict(type='PhotoMetricDistortion'))
    config.test_dataloader.dataset.pipeline = config.test_pipeline
    path = as_trained(config, tmp_path, SIZE)
    with pytest.raises(UserError, match='PhotoMetricDistortion'):
        export(ExportOptions(str(path), tmp_path / 'out', size=SIZE))


@pytest.mark.slow
@pytest.mark.parametrize('format', ['openvino', 'torch'])
def test_other_formats_are_equal_too(trained, tmp_path, format):
    options = ExportOptions(str(trained), tmp_path / 'out', format, size=SIZE)
    done = export_with_figures(options)
    assert done.passed
    assert done.comparison.boxes > 40


@pytest.mark.slow
def test_a_dynamic_export_takes_images_of_any_size_at_once(trained, tmp_path):
    options = ExportOptions(str(trained), tmp_path / 'out', size=SIZE, dynamic=True)
    done = export_with_figures(options)
    assert done.passed
    detector = load(done.folder)
    images = [blocks(size, 5) for size in ((96, 96), (96, 96), (60, 200))]
    together = detector.predict(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.predict([image])
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)


@pytest.mark.slow
def test_a_centred_image_is_found_where_it_is(tmp_path):
    from detector_matrix import DETECTORS

    path, _ = Config._get_cfg_path(f'mmdet::{DETECTORS["CenterNet"]}', '')
    config = Config.fromfile(path)
    trained = as_trained(config, tmp_path, SIZE)
    done = export_with_figures(ExportOptions(str(trained), tmp_path / 'out', size=SIZE))
    assert done.passed
    assert done.comparison.boxes > 40


@pytest.fixture
def export_apart(run_python):
    """Export in a process of its own, as a user does.

    In this one NNCF would leave something behind that ends trainings of later tests.
    """

    def run(config, out, *flags: str) -> dict:
        size = map(str, SIZE)
        command = ['export', str(config), '-o', str(out), '--size', *size, '--json']
        done = run_python(
            '-m', 'mmdet_backbones', *command, '--precision', 'int8', *flags
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.slow
@pytest.mark.parametrize('format', ['onnx', 'openvino'])
def test_eight_bits_are_calibrated_and_measured(tmp_path, format, export_apart):
    (tmp_path / 'data').mkdir()
    config = Config.fromfile(
        write_config(tmp_path / 'squares.py', draw_squares(tmp_path / 'data'))
    )
    trained = as_trained(config, tmp_path, SIZE)
    # Of random weights mAP is next to nothing: this is the way, not the worth.
    report = export_apart(trained, tmp_path / 'out', '--format', format)
    assert report['passed']
    assert any('calibrated on 8 images' in note for note in report['notes'])
    assert 'mAP' in (tmp_path / 'out' / 'equality.md').read_text()
    (found,) = load(tmp_path / 'out').predict([blocks(SIZE, 3)])
    assert len(found.scores) > 0


def label_what_it_finds(config: Config, exported, root) -> None:
    """Make the test set one in which the detector, of random weights, is right."""
    evaluator = config.test_evaluator
    file = root / evaluator.ann_file.rsplit('/', 1)[-1]
    data = json.loads(file.read_text())
    detector = load(exported)
    data['annotations'] = []
    folder = root / config.test_dataloader.dataset.data_prefix.img
    for image in data['images']:
        path = folder / image['file_name']
        (found,) = detector.predict([path], threshold=0.3)
        for box, label in zip(found.boxes.tolist(), found.labels, strict=True):
            x, y, right, bottom = box
            data['annotations'].append(
                dict(
                    id=len(data['annotations']) + 1, image_id=image['id'], iscrowd=0,
                    category_id=data['categories'][label]['id'],
                    bbox=[x, y, right - x, bottom - y], area=(right - x) * (bottom - y),
                )
            )  # fmt: skip
    file.write_text(json.dumps(data))


@pytest.mark.slow
def test_layers_that_cost_most_go_back_to_float(tmp_path, export_apart):
    (tmp_path / 'data').mkdir()
    config = Config.fromfile(
        write_config(tmp_path / 'squares.py', draw_squares(tmp_path / 'data'))
    )
    # Each of its layers is tried in float.
    config.model.backbone = dict(
        type='mmdet.ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3)
    )
    config.model.neck.update(in_channels=[16, 32, 64], out_channels=16)
    config.model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    trained = as_trained(config, tmp_path, SIZE)
    exported = export(ExportOptions(str(trained), tmp_path / 'float', size=SIZE))
    label_what_it_finds(config, exported, tmp_path / 'data')
    report = export_apart(trained, tmp_path / 'out', '--max-drop', '0.02')
    assert report['passed']
    (note,) = [note for note in report['notes'] if 'before quantising' in note]
    told = re.fullmatch(
        r'mAP (\S+) before quantising, (\S+) with nothing of the net in float, (\S+) '
        r'with (detector\.\S+(?:, detector\.\S+)*) in float; .*',
        note,
    )
    before, all_of_it, after = map(float, told.groups()[:3])
    assert before == 1.0
    assert before - all_of_it > 0.02 >= before - after
    # Most of the net is in 8 bits.
    assert len(told[4].split(', ')) < 12
