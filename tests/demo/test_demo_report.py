"""Tests of the demo's report on synthetic logs, images and detections."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import report_demo as report
from PIL import Image
from pycocotools.coco import COCO

ROOT = Path(__file__).parents[2]
BOXES = [[4, 6, 20, 30], [50, 40, 40, 16]]


@pytest.fixture
def data(tmp_path):
    """Two black images of 100 x 80 with two boxes each, and their annotations."""
    folder = tmp_path / 'val'
    folder.mkdir()
    images, annotations = [], []
    for i in (1, 2):
        Image.new('RGB', (100, 80)).save(folder / f'tile{i}.png')
        images.append(
            {'id': i, 'file_name': f'tile{i}.png', 'width': 100, 'height': 80}
        )
        for box in BOXES:
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': i,
                    'category_id': 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
            )
    content = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'tree'}],
    }
    (tmp_path / 'val.json').write_text(json.dumps(content))
    return tmp_path


def detections(shift=0, score=0.9):
    return [
        {
            'image_id': i,
            'category_id': 1,
            'bbox': [box[0] + shift, *box[1:]],
            'score': score,
        }
        for i in (1, 2)
        for box in BOXES
    ]


def write_run(work_dir, name, steps, validation=(), tail=''):
    """Write a log as mmengine's LocalVisBackend does: a JSON object per line."""
    entries = [
        (epoch, {'lr': 0.1, 'loss': loss, 'epoch': epoch, 'iter': i, 'step': i})
        for epoch, i, loss in steps
    ]
    entries += [
        (epoch, {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': ap50, 'step': epoch})
        for epoch, ap, ap50 in validation
    ]
    # A validation follows the steps of its epoch; sorted() keeps that order.
    lines = [json.dumps(e) for _, e in sorted(entries, key=lambda pair: pair[0])]
    log = work_dir / name / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(lines) + '\n' + tail)


def test_history_of_one_run_that_was_killed_in_the_middle_of_a_line(tmp_path):
    write_run(tmp_path, '20250101_000000', [(1, 10, 3.0), (1, 20, 2.0)], tail='{"lo')
    history = report.read_history(tmp_path)
    assert history.loss == [(10, 3.0), (20, 2.0)]
    assert history.validation == []


def test_history_drops_what_a_resumed_run_does_again(tmp_path):
    first = [(1, 10, 5.0), (2, 20, 4.0), (3, 30, 9.0)]
    write_run(tmp_path, '20250101_000000', first, [(1, 0.1, 0.2), (2, 0.2, 0.3)])
    # Resumed from the checkpoint of epoch 1, so epoch 2 is trained again.
    write_run(tmp_path, '20250101_000001', [(2, 20, 3.0)], [(2, 0.4, 0.5)])
    history = report.read_history(tmp_path)
    assert history.loss == [(10, 5.0), (20, 3.0)]
    assert history.validation == [(1, 0.1, 0.2), (2, 0.4, 0.5)]


def test_history_ignores_test_runs_and_needs_a_training(tmp_path):
    write_run(tmp_path, '20250101_000000', [], [(0, 0.4, 0.5)])
    with pytest.raises(FileNotFoundError, match='train first'):
        report.read_history(tmp_path)
    write_run(tmp_path, '20250101_000001', [(1, 10, 1.0)], [(1, 0.1, 0.2)])
    write_run(tmp_path, '20250101_000002', [], [(0, 0.4, 0.5)])
    assert report.read_history(tmp_path).validation == [(1, 0.1, 0.2)]


def test_metrics_of_perfect_missed_and_no_detections(data):
    truth = COCO(str(data / 'val.json'))
    perfect = report.coco_metrics(truth, detections())
    assert perfect == pytest.approx(
        {'AP': 1, 'AP50': 1, 'AP75': 1, 'APs': 1, 'APm': None, 'APl': None}
    )
    assert report.coco_metrics(truth, detections(shift=45))['AP'] == 0
    assert set(report.coco_metrics(truth, []).values()) == {0.0}


def test_metrics_of_another_data_set_say_so(data):
    truth = COCO(str(data / 'val.json'))
    wrong = [{**detections()[0], 'image_id': 77}]
    with pytest.raises(ValueError, match='image 77'):
        report.coco_metrics(truth, wrong)


def test_pictures_show_truth_left_and_sure_detections_right(data):
    truth = COCO(str(data / 'val.json'))
    found = detections(score=0.8) + detections(shift=5, score=0.2)
    pictures = report.draw_detections(truth, found, data / 'val', score=0.5)
    assert set(pictures) == {'tile1.png', 'tile2.png'}
    pixels = np.asarray(pictures['tile1.png'])
    # Pictures of 200 pixels have 240 each, for what stands above them.
    left, right = pixels[30:, :200], pixels[30:, 252:452]
    assert pixels.shape == (30 + 160, 492, 3)
    for x, y, w, h in BOXES:
        # The lower right corner: the score covers the upper left one.
        corner = (2 * (y + h), 2 * (x + w))
        assert tuple(left[corner]) == (90, 255, 90)
        assert tuple(right[corner]) == (255, 190, 60)
    assert not right[2 * 36, 2 * 29].any(), 'the unsure detection is drawn'


def test_report_writes_everything_it_names(data):
    work_dir = data / 'work'
    steps = [(1, 10, 2.0), (2, 20, 1.0)]
    write_run(work_dir, '20250101_000000', steps, [(1, 0.1, 0.2), (2, 0.3, 0.6)])
    (work_dir / 'test.bbox.json').write_text(json.dumps(detections()))
    made = report.write_report(
        work_dir,
        data / 'val.json',
        data / 'val',
        work_dir / 'test.bbox.json',
        {'train': 61.5},
    )
    written = json.loads((work_dir / 'metrics.json').read_text())
    assert written['AP'] == made.metrics['AP'] == 1
    assert written['seconds'] == made.timings == {'train': 61.5}
    assert (written['images'], written['boxes']) == (2, 4)
    assert Image.open(work_dir / 'curves.png').size == (1200, 480)
    assert len(list((work_dir / 'detections').glob('*.png'))) == 2
    assert all(path.exists() for path in made.files.values())
    assert not list(work_dir.rglob('*.partial'))


@pytest.mark.slow
def test_tool_prints_the_numbers_and_one_line_for_a_mistake(data):
    work_dir = data / 'work'
    command = [sys.executable, str(ROOT / 'tools/demo/report_demo.py'), str(work_dir)]
    command += ['--ann', str(data / 'val.json'), '--images', str(data / 'val')]
    # PYTHONPATH: the tool runs from a clone that is not installed as well.
    environment = {'PYTHONPATH': str(ROOT), 'PATH': '', 'COLUMNS': '300'}
    run = {'capture_output': True, 'text': True, 'env': environment}
    done = subprocess.run(command, **run, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert 'test.bbox.json' in done.stderr
    write_run(work_dir, '20250101_000000', [(1, 10, 2.0)], [(1, 0.1, 0.2)])
    (work_dir / 'test.bbox.json').write_text(json.dumps(detections()))
    (work_dir / 'timings.json').write_text('{"train": 61.5}')
    done = subprocess.run(command, **run, check=False)
    assert done.returncode == 0, done.stderr
    for expected in ('AP50', '1.000', '62 s', 'curves.png'):
        assert expected in done.stdout
