"""Boxes in files: read back by our own readers, and whole lines at any time."""

import csv
import json
import os
import resource

import numpy as np
import pytest
from finders import CLASSES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from own_folders import load
from PIL import Image

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.boxes import ClassRule, clean
from mmdet_backbones.own_data.formats import coco, labelme, voc, yolo
from mmdet_backbones.own_data.images import look_at
from mmdet_backbones.own_data.records import Notes
from mmdet_backbones.own_data.scan import recognise, scan
from mmdet_backbones.predict.frames import Frame
from mmdet_backbones.predict.labels import LabelFiles, odd_names
from mmdet_backbones.predict.lines import LineFile
from mmdet_backbones.predict.tables import CocoData, CsvTable, JsonLines, TableFile
from mmdet_backbones.runtime.detections import Detections

NAMES = ('tree', 'süß & <odd>', '1e3', 'no')


@st.composite
def scenes(draw):
    """Images of odd names and sizes, and boxes of a pixel and more."""
    made = {}
    stems = st.sampled_from(['a', 'b c', 'ü', 'a/b', 'x.y', '0', '%20', "o'"])
    for stem in draw(st.lists(stems, min_size=1, max_size=4, unique=True)):
        width, height = draw(st.integers(8, 4000)), draw(st.integers(8, 300))
        boxes = []
        for _ in range(draw(st.integers(0, 4))):
            # Parts of a pixel that float32 holds.
            x0, y0 = (draw(st.integers(0, (s - 2) * 64)) for s in (width, height))
            x1 = draw(st.integers(x0 + 96, width * 64))
            y1 = draw(st.integers(y0 + 96, height * 64))
            corners = [value / 64 for value in (x0, y0, x1, y1)]
            boxes.append((draw(st.integers(0, len(NAMES) - 1)), *corners))
        made[f'{stem}.png'] = ((width, height), boxes)
    return made


def frame_of(root, name, size, boxes):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', size).save(root / name)
    boxes = np.array(boxes, np.float32).reshape(-1, 5)
    scores = np.linspace(0.9, 0.4, len(boxes)).astype(np.float32)
    found = Detections(boxes[:, 1:], scores, boxes[:, 0].astype(np.int64), NAMES)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    return Frame(name, pixels, root / name), found


READERS = dict(coco=coco, voc=voc, yolo=yolo, labelme=labelme)


def read_back(root, kind):
    notes = Notes()
    found = scan(root, root / 'out')
    assert recognise(found, None) == kind
    more = (None,) if kind == 'yolo' else ()
    annotations = READERS[kind].read(found, notes, *more)
    records = {}
    for record in annotations.records:
        facts = look_at(root / record.name)
        boxes = clean(record, facts, ClassRule(None, None), notes)
        records[record.name] = [(box.label, *box.corners) for box in boxes]
    return records, annotations.classes, notes


@pytest.mark.parametrize('kind', ['coco', 'voc', 'yolo', 'labelme'])
@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(scenes())
def test_what_is_written_is_read_back(tmp_path_factory, kind, made):
    # Empty label files alone are of no format.
    assume(kind != 'yolo' or any(boxes for _, boxes in made.values()))
    root = tmp_path_factory.mktemp(kind)
    if kind == 'coco':
        file = LineFile(root / 'found.json')
        writer = TableFile(file, CocoData(file.write, NAMES))
    else:
        writer = LabelFiles(root, kind, NAMES)
    for name, (size, boxes) in made.items():
        writer.add(*frame_of(root, name, size, boxes))
    writer.close()
    records, classes, notes = read_back(root, kind)
    assert [f for f in notes.findings if 'less than 32' not in f.problem] == []
    assert records.keys() == made.keys()
    if kind in ('coco', 'yolo'):
        assert classes == NAMES
    for name, (_, boxes) in made.items():
        assert [box[0] for box in records[name]] == [NAMES[box[0]] for box in boxes]
        if boxes:
            wanted = np.array([box[1:] for box in boxes])
            assert (
                np.abs(np.array([b[1:] for b in records[name]]) - wanted).max() < 2e-3
            )


def two(tmp_path):
    return (
        frame_of(tmp_path, 'a.png', (60, 40), [(0, 1.25, 2, 30, 20), (3, 4, 5, 9, 9)]),
        frame_of(tmp_path, 'b.png', (50, 40), []),
        frame_of(tmp_path, 'c.png', (70, 40), [(1, 0.1, 0, 69.9, 40)]),
    )


def test_json_has_one_line_for_each_image(tmp_path):
    lines = []
    table = JsonLines(lines.append)
    for frame, found in two(tmp_path):
        table.add(frame, found)
    film = Frame('clip.mp4', np.zeros((8, 9, 3), np.uint8), None, 12, 0.48)
    table.add(film, found)
    table.end()
    first, second, _, fourth = map(json.loads, lines)
    assert first == dict(
        image=str(tmp_path / 'a.png'), width=60, height=40,
        boxes=[{'class': 'tree', 'score': 0.9, 'box': [1.25, 2, 30, 20]},
               {'class': 'no', 'score': 0.4, 'box': [4, 5, 9, 9]}],
    )  # fmt: skip
    assert second['boxes'] == []
    assert {k: fourth[k] for k in ('image', 'frame', 'time', 'width')} == dict(
        image='clip.mp4', frame=12, time=0.48, width=9
    )


def test_csv_has_one_line_for_each_box(tmp_path):
    lines = []
    table = CsvTable(lines.append)
    for frame, found in two(tmp_path):
        table.add(frame, found)
    table.end()
    rows = [*csv.DictReader(''.join(lines).splitlines())]
    assert [row['class'] for row in rows] == ['tree', 'no', NAMES[1]]
    assert rows[2]['x2'] == '69.9'
    assert rows[0]['frame'] == ''
    assert all(line.endswith('\n') for line in lines if line)


def test_coco_is_read_by_pycocotools(tmp_path):
    file = LineFile(tmp_path / 'found.json')
    writer = TableFile(file, CocoData(file.write, NAMES))
    for frame, found in two(tmp_path):
        writer.add(frame, found)
    assert writer.close() == [tmp_path / 'found.json']
    data = load(tmp_path / 'found.json')
    assert [data.imgs[i]['file_name'] for i in (1, 2, 3)] == ['a.png', 'b.png', 'c.png']
    assert [data.cats[i]['name'] for i in (1, 2, 3, 4)] == [*NAMES]
    assert sorted(data.anns) == [1, 2, 3]
    assert data.anns[3]['image_id'] == 3
    assert data.anns[1]['score'] == 0.9


def test_a_file_without_boxes_is_one_too(tmp_path):
    file = LineFile(tmp_path / 'found.json')
    TableFile(file, CocoData(file.write, CLASSES)).close()
    assert load(tmp_path / 'found.json').anns == {}


def test_a_file_that_grows_has_whole_lines_and_another_name(tmp_path):
    elsewhere = tmp_path / 'precious'
    elsewhere.write_text('kept')
    path = tmp_path / 'deep' / 'found.jsonl'
    path.parent.mkdir()
    path.write_text('old')
    os.symlink(elsewhere, path.with_name('found.jsonl.partial'))
    file = LineFile(path)
    file.write('one\n')
    file.write('two\n')
    assert path.with_name('found.jsonl.partial').read_text() == 'one\ntwo\n'
    assert path.read_text() == 'old'
    assert elsewhere.read_text() == 'kept'
    file.close()
    assert path.read_text() == 'one\ntwo\n'
    assert [p.name for p in path.parent.iterdir()] == ['found.jsonl']


def test_a_full_disk_leaves_whole_lines(tmp_path):
    file = LineFile(tmp_path / 'found.jsonl')
    file.write('one\n')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(UserError, match='make room on the disk'):
            file.write('two' * 20 + '\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.partial.read_text() == 'one\n'
    file.write('three\n')
    file.close()
    assert file.path.read_text() == 'one\nthree\n'


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / 'a').write_text('in the way')
    with pytest.raises(UserError, match='cannot be written'):
        LineFile(tmp_path / 'a' / 'found.jsonl')


def test_labels_of_names_that_other_tools_cannot_tell_apart_are_refused():
    assert odd_names(CLASSES) is None
    for names in (('a', 'a'), ('a', ''), ('a\nb',), (' a',), ('e\u0301',)):
        assert 'are not told apart' in odd_names(names)
