"""The command: what it finds, where that goes, and what it refuses to do."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from exported_folders import draw, write_exported
from finders import CLASSES, photographs
from own_folders import load, state_of
from PIL import Image
from pycocotools.cocoeval import COCOeval

from mmdet_backbones.cli.main import main
from mmdet_backbones.engine.class_table import figures_of
from mmdet_backbones.predict.options import PredictOptions
from mmdet_backbones.predict.running import predict
from mmdet_backbones.runtime import load as load_exported


@pytest.fixture
def here(rooted, detector, tmp_path, monkeypatch):
    """A folder with photographs, in which commands are written."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(rooted / 'data' / 'val', tmp_path / 'photos')
    return tmp_path


@pytest.fixture
def run(rooted, capfd):
    def start(*words, work='work'):
        status = main(
            ['predict', str(rooted / work), *map(str, words), '--device', 'cpu']
        )
        said = capfd.readouterr()
        return status, said.out, said.err

    return start


def test_lines_of_json_are_what_the_detector_finds(run, here, detector, images):
    status, out, err = run('photos')
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [one['image'] for one in found] == [f'photos/{i}.png' for i in range(3)]
    for one, wanted in zip(found, detector.predict(images, 0.3), strict=True):
        assert [box['box'] for box in one['boxes']] == pytest.approx(wanted.boxes)
        assert [box['score'] for box in one['boxes']] == pytest.approx(wanted.scores)
        classes = [CLASSES[label] for label in wanted.labels]
        assert [box['class'] for box in one['boxes']] == classes
        assert len(classes) > 20
    count = sum(len(one['boxes']) for one in found)
    assert f'{count} boxes in 3 images' in err
    assert 'images/s' in err


def test_ap_is_the_one_that_the_test_reports(run, here, rooted, capfd):
    data = rooted / 'data' / 'val.json'
    status, *_ = run(
        'photos', '--format', 'coco', '--annotations', data, '-o', 'a.json'
    )
    assert status == 0
    best = rooted / 'work' / 'best_coco_bbox_mAP_epoch_3.pth'
    config = rooted / 'work' / 'config.py'
    words = ['test', config, best, '--work-dir', here / 'tested', '--json']
    assert main([*map(str, words)]) == 0
    tested = json.loads(capfd.readouterr().out)
    truth = load(data)
    evaluator = COCOeval(truth, truth.loadRes(str(here / 'a.json')), 'bbox')
    evaluator.evaluate()
    evaluator.accumulate()
    rows = figures_of(evaluator)
    wanted = tested['classes']['bbox']
    assert [row.name for row in rows] == [*CLASSES]
    for row, figures in zip(rows, wanted, strict=True):
        for name in ('ap', 'ap50', 'ap75', 'recall'):
            assert getattr(row, name) == pytest.approx(figures[name], abs=1e-6)
    mean = np.mean([row.ap for row in rows])
    assert 0.1 < mean < 0.9
    assert mean == pytest.approx(tested['coco/bbox_mAP'], abs=0.0005 + 1e-9)


def test_an_image_that_cannot_be_read_is_told_and_the_others_go_on(run, here):
    content = (here / 'photos' / '0.png').read_bytes()
    (here / 'photos' / '00.png').write_bytes(content[:50])
    (here / 'photos' / 'text.jpg').write_text('no image')
    status, _, err = run('photos', '-o', 'found.jsonl')
    assert status == 1
    assert "'photos/00.png' cannot be read" in err
    assert "'photos/text.jpg' cannot be read" in err
    assert len((here / 'found.jsonl').read_text().splitlines()) == 3


def test_the_summary_in_json(run, here):
    (here / 'photos' / 'text.jpg').write_text('no image')
    status, out, _ = run('photos', '--json', '--classes', 'rock , shrub')
    summary = json.loads(out)
    assert status == 1
    assert summary['images'] == len(summary['found']) == 3
    assert set(summary['classes']) == {'rock', 'shrub'}
    assert summary['boxes'] == sum(len(one['boxes']) for one in summary['found'])
    assert len(summary['problems']) == 1
    status, out, _ = run('photos/0.png', '--json', '-o', 'a.csv', '--format', 'csv')
    assert (status, json.loads(out)['written']) == (0, ['a.csv'])
    with (here / 'a.csv').open() as file:
        assert len([*csv.DictReader(file)]) == json.loads(out)['boxes']
    status, out, _ = run('photos/0.png', '--json', '--format', 'csv')
    assert (status, 'name a file for csv' in json.loads(out)['error']) == (1, True)


@pytest.mark.parametrize('kind', ['yolo', 'voc', 'labelme'])
def test_labels_lie_beside_their_images(run, here, kind):
    before = state_of(here / 'photos')
    status, *_ = run('photos', '--format', kind, '-o', 'photos')
    assert status == 0
    after = state_of(here / 'photos')
    assert before.items() <= after.items()
    end = dict(yolo='txt', voc='xml', labelme='json')[kind]
    assert {f'{i}.{end}' for i in range(3)} <= after.keys()
    if kind == 'yolo':
        assert (here / 'photos/classes.txt').read_text().split() == [*CLASSES]
    if kind == 'labelme':
        assert json.loads((here / 'photos/0.json').read_text())['imagePath'] == '0.png'
    # What a person has mended since is not written over.
    status, _, err = run('photos', '--format', kind, '-o', 'photos')
    assert status == 1
    assert 'write --force' in err
    assert state_of(here / 'photos') == after


def test_painted_pictures_show_the_boxes(run, here, detector):
    with Image.open(here / 'photos' / '1.png') as picture:
        picture.convert('RGBA').save(here / 'photos' / '1.webp')
        picture.save(here / 'photos' / '1.jpg')
    before = state_of(here / 'photos')
    status, out, _ = run('photos', '--paint', 'painted', '--threshold', '0.6')
    assert status == 0
    assert out.splitlines()[-1] == 'painted'
    names = ['0.png', '1.jpg', '1.png', '1.webp.png', '2.png']
    assert sorted(os.listdir('painted')) == names
    assert state_of(here / 'photos') == before
    # Painted pictures among the photographs are not painted once more.
    for count in (5, 5):
        words = ('photos', '--paint', 'photos/painted', '--force', '--json')
        assert json.loads(run(*words)[1])['images'] == count
    with Image.open('painted/0.png') as painted:
        difference = np.abs(
            np.asarray(painted).astype(int) - detector.read('photos/0.png')
        ).sum(-1)
    (found,) = detector.predict('photos/0.png', 0.6)
    x0, y0, x1, _ = found.boxes[0].astype(int)
    assert (difference[y0, x0 + 2 : x1 - 2] > 0).mean() > 0.9
    assert (difference > 0).mean() < 0.7


def test_what_it_would_write_over_is_told(run, here):
    before = state_of(here)
    (here / 'found.jsonl').write_text('mine')
    for words, what in (
        (('-o', 'found.jsonl'), "'found.jsonl' is there already: write --force"),
        (('-o', 'found.txt'), '-o must end in .jsonl or .json'),
        (('-o', 'photos'), '-o must end in'),
        (('--paint', 'photos', '--force'), 'would write over what it paints'),
        (('--paint', 'found.jsonl'), "'found.jsonl' is a file: name a folder"),
        (('--format', 'voc'), 'name a folder, -o FOLDER'),
        (('--annotations', 'x'), 'belongs to --format coco'),
    ):
        status, out, err = run('photos', *words)
        assert (status, out, what in err) == (1, '', True), err
    (here / 'found.jsonl').unlink()
    assert state_of(here) == before
    Image.new('RGB', (40, 40)).save('photos/0.jpg')
    status, _, err = run('photos', '--format', 'voc', '-o', 'labels')
    assert 'would both be written to' in err


def test_with_force_the_old_file_stays_until_the_new_one_is_whole(run, here):
    (here / 'found.jsonl').write_text('old')
    (here / 'found.jsonl.partial').write_text('of a run that was killed\n')
    status, _, err = run('photos/1.png', '-o', 'found.jsonl', '--force')
    assert status == 0, err
    assert json.loads((here / 'found.jsonl').read_text())['image'] == 'photos/1.png'
    assert not (here / 'found.jsonl.partial').exists()
    (here / 'found.jsonl').rename(here / 'found.jsonl.partial')
    status, _, err = run('photos', '-o', 'found.jsonl')
    assert status == 1
    assert "'found.jsonl.partial' holds what a run found that was killed" in err


def test_all_mistakes_are_told_at_once(run, here):
    status, out, err = run(
        'nothing.jpg', 'photos/*.gif', '--threshold', '1.5', '--batch', '0',
        '--tile', '5', '--overlap', '0.9',
    )  # fmt: skip
    assert (status, out) == (1, '')
    for what in (
        *('--threshold lies', '--batch is', '--tile takes', '--overlap lies'),
        *("no image, video or folder 'nothing.jpg'", 'matches no image'),
    ):
        assert what in err
    assert err.count('error: ') == 1
    status, _, err = run('photos', '--classes', 'tre,Rock,x')
    assert status == 1
    assert "no class 'tre'; nearest: tree" in err
    assert "no class 'Rock'; nearest: rock" in err
    assert "no class 'x'; all: tree, shrub, rock" in err


def test_annotations_that_do_not_fit_are_told(run, here, rooted):
    content = json.loads((rooted / 'data' / 'val.json').read_text())
    content['categories'] = content['categories'][:2]
    content['images'] = content['images'][1:]
    (here / 'part.json').write_text(json.dumps(content))
    words = ('--format', 'coco', '--annotations', 'part.json', '-o', 'a.json')
    status, _, err = run('photos', *words)
    assert status == 1
    assert 'lists no image of 0.png, and has no class rock, it has tree, shrub' in err
    status, _, err = run('photos/1.png', '--classes', 'shrub', *words)
    assert status == 0
    assert '1 of the 2 images' in err
    assert {
        one['category_id'] for one in json.loads((here / 'a.json').read_text())
    } == {9}
    words = ('--format', 'coco', '--annotations', 'part.json', '-o', 'part.json')
    status, _, err = run('photos/1.png', '--force', *words)
    assert (status, 'are the annotations' in err) == (1, True)
    (here / 'part.json').write_text('[]')
    words = (*words[:-1], 'a.json')
    status, _, err = run('photos', *words, '--force')
    assert status == 1
    assert "'part.json' cannot be read as COCO's" in err


def test_tiles_find_what_is_small_in_a_large_photograph(run, here, detector):
    image = np.tile(detector.read('photos/0.png'), (3, 3, 1))
    Image.fromarray(image).save('large.png')
    counts = []
    for words in ((), ('--tile', '160', '--batch', '4')):
        status, out, _ = run('large.png', *words)
        assert status == 0
        boxes = np.array([b['box'] for b in json.loads(out)['boxes']])
        assert boxes[:, 2].max() <= 480
        counts.append(len(boxes))
    # The detector gives a hundred boxes an image at most.
    assert counts[0] <= 100 < counts[1]


def test_an_exported_detector_predicts_as_well(here, capfd):
    pytest.importorskip('onnxruntime')
    write_exported(here / 'exported')
    image = draw(64, 96, (10, 12, 30, 50), (50, 20, 90, 40))
    Image.fromarray(image).save('photos/0.png')
    words = ['predict', 'exported', 'photos/0.png', '--classes', 'wide']
    assert main(words) == 0
    said = capfd.readouterr()
    (box,) = json.loads(said.out)['boxes']
    assert box['class'] == 'wide'
    (found,) = load_exported('exported').predict([image])
    wide = found.labels == found.names.index('wide')
    assert [box['box']] == found.boxes[wide].tolist()
    assert '1 box in 1 image, ' in said.err
    (here / 'exported' / 'model.onnx').write_bytes(b'changed')
    assert main(words) == 1
    assert capfd.readouterr().err.startswith('error: ')


def test_stopping_keeps_what_was_found(rooted, here):
    def stopped(items, total, name):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    for kind, out in (('json', 'a.jsonl'), ('coco', 'a.json'), ('yolo', 'labels')):
        options = PredictOptions(
            str(rooted / 'work'), ('photos',), device='cpu', out=here / out, format=kind
        )
        summary = predict(options, stopped)
        assert (summary.stopped, summary.images) == (True, 2)
    assert len((here / 'a.jsonl').read_text().splitlines()) == 2
    assert len(load(here / 'a.json').imgs) == 2
    assert sorted(os.listdir('labels')) == ['0.txt', '1.txt', 'classes.txt']


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_lines(rooted, here):
    photographs(here / 'many', 400)
    words = [sys.executable, '-m', 'mmdet_backbones', 'predict', str(rooted / 'work'),
             'many', '--device', 'cpu', '-o', 'found.jsonl']  # fmt: skip
    started = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=-1)
    partial = here / 'found.jsonl.partial'
    until = time.monotonic() + 120
    while time.monotonic() < until and started.poll() is None:
        if partial.exists() and partial.read_bytes().count(b'\n') > 20:
            break
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    lines = partial.read_text().splitlines()
    assert 20 < len(lines) < 400
    assert all(json.loads(line)['boxes'] for line in lines)
    assert not (here / 'found.jsonl').exists()
    for more, status in (((), 1), (('--force',), 0)):
        done = subprocess.run([*words, *more], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    every = (here / 'found.jsonl').read_text().splitlines()
    assert len(every) == 400
    assert every[: len(lines)] == lines
