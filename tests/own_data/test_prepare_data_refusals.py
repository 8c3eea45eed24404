"""What prepare_data refuses to do, and what it never writes over."""

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from own_folders import (
    coco_json,
    draw,
    read_back,
    scenes,
    snapshot,
    voc_xml,
    write_coco,
    write_labelme,
    write_voc,
    write_yolo,
)

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.prepare import DataOptions, prepare


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('name', ['train', 'annotations', 'examples.png'])
def test_nothing_that_is_not_ours_is_replaced(tmp_path, name, force):
    write_voc(tmp_path / 'mine', scenes())
    place = tmp_path / 'out' / name
    place.parent.mkdir()
    place.write_text('mine')
    with pytest.raises(UserError, match=f'holds {name}'):
        prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', force=force))
    assert snapshot(tmp_path / 'out') == {name: b'mine'}


def test_our_own_data_set_is_replaced_by_force_alone(tmp_path):
    write_voc(tmp_path / 'mine', scenes(6))
    out = tmp_path / 'out'
    prepare(DataOptions(tmp_path / 'mine', out))
    (out / 'notes.txt').write_text('mine')
    before = snapshot(out)
    (tmp_path / 'mine/Annotations/photo_0.xml').unlink()
    with pytest.raises(UserError, match='--force replaces'):
        prepare(DataOptions(tmp_path / 'mine', out))
    assert snapshot(out) == before
    prepare(DataOptions(tmp_path / 'mine', out, force=True))
    assert 'photo_0.png' not in read_back(out)[0]
    assert (out / 'notes.txt').read_text() == 'mine'
    assert {path.name for path in tmp_path.iterdir()} == {'mine', 'out'}


@pytest.mark.parametrize('step', range(1, 12, 2))
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step):
    write_voc(tmp_path / 'mine', scenes(4))
    out, left = tmp_path / 'out', iter(range(step))
    prepare(DataOptions(tmp_path / 'mine', out))
    before, rename = snapshot(out), Path.rename

    def fails(self, target):
        if next(left, None) == step - 1:
            raise OSError('no space left')
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', fails)
    order = DataOptions(tmp_path / 'mine', out, merge_into='plant', force=True)
    if step > 10:
        prepare(order)
        return
    with pytest.raises(UserError, match='no space left'):
        prepare(order)
    assert snapshot(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {'mine', 'out'}


def test_a_file_in_the_way_and_folders_within_each_other(tmp_path):
    write_voc(tmp_path / 'mine', scenes())
    (tmp_path / 'file').write_text('mine')
    for out, words in (
        (tmp_path / 'file', 'is a file: move it away'),
        (tmp_path / 'file' / 'out', 'is a file'),
        (tmp_path / 'mine', 'name a folder beside it'),
        (tmp_path / 'mine' / 'out', 'name a folder beside it'),
        (tmp_path, 'name a folder beside it'),
    ):
        with pytest.raises(UserError, match=words):
            prepare(DataOptions(tmp_path / 'mine', out, force=True))
    assert (tmp_path / 'file').read_text() == 'mine'


def test_mistakes_are_told_all_at_once(tmp_path):
    order = DataOptions(
        tmp_path / 'no', tmp_path / 'out', 1.5, 0, ('a', '', 'b', 'b'), ' '
    )
    with pytest.raises(UserError) as caught:
        prepare(order)
    for words in ('there is no folder', '--val-share', '--classes takes', 'b twice',
                  '--merge-into takes'):  # fmt: skip
        assert words in str(caught.value)


def test_folders_that_are_no_data_set(tmp_path):
    (tmp_path / 'none').mkdir()
    draw(tmp_path / 'bare/1.png', (100, 80), [])
    (tmp_path / 'bare/notes.txt').write_text('hello')
    write_voc(tmp_path / 'mixed', scenes())
    write_labelme(tmp_path / 'mixed', scenes())
    write_voc(tmp_path / 'one', scenes(1))
    for name, words in (
        ('none', ['no images', 'nothing at all']),
        ('bare', ['no annotations', 'labelme', 'YOLO', '1 images', '1 files .txt']),
        ('mixed', ['several formats', 'labelme: 6 files', 'voc: 6 files', '--format']),
        ('one', ['takes two or more']),
    ):
        with pytest.raises(UserError) as caught:
            prepare(DataOptions(tmp_path / name, tmp_path / 'out'))
        for word in words:
            assert word.lower() in str(caught.value).lower()
        assert not (tmp_path / 'out').exists()


def test_classes_that_no_object_is_of(tmp_path):
    write_voc(tmp_path / 'mine', scenes())
    with pytest.raises(UserError, match=r"'treee' \(nearest: tree\).*'x'"):
        prepare(
            DataOptions(tmp_path / 'mine', tmp_path / 'out', classes=('treee', 'x'))
        )


def test_hostile_numbers_and_names_are_only_data(tmp_path):
    write_coco(tmp_path / 'coco', made := scenes())
    content = coco_json(made)
    first = content['annotations'][0]
    content['annotations'] += [
        *(3, None, 'x', dict(first, bbox=[1, 2, 10**400, 4]), dict(first, bbox='1234')),
        dict(first, image_id=float('inf')), dict(first, category_id=[1]),
        dict(first, segmentation={'counts': 'x', 'size': [1, 1]}),
        dict(first, segmentation=[[1, 2], 'abcdef', None]),
    ]  # fmt: skip
    content['images'] += [None, 5, dict(id='x', file_name='a'), dict(id=float('inf'))]
    path = tmp_path / 'coco/annotations/instances_all.json'
    path.write_text(json.dumps(content))
    prepare(DataOptions(tmp_path / 'coco', tmp_path / 'a'))
    found, _ = read_back(tmp_path / 'a')
    boxes = sum(len(boxes) for _, boxes in made.values())
    assert sum(map(len, found.values())) == boxes + 2

    write_yolo(tmp_path / 'yolo', made)
    levels = ''.join(f'k{i}: &k{i} [{f"*k{i - 1}, " * 9}]\n' for i in range(1, 12))
    (tmp_path / 'yolo/data.yaml').write_text(
        f'k0: &k0 [ha]\n{levels}names: [tree, *k11]\ntrain: ../../../etc\nval: /etc\n'
    )
    (tmp_path / 'yolo/labels/photo_0.txt').write_text(
        '1e400 inf nan 0 0\n0 1e308 1 1 1'
    )
    report = prepare(DataOptions(tmp_path / 'yolo', tmp_path / 'b'))
    assert report.classes == ('tree', 'class 1')
    assert len(read_back(tmp_path / 'b')[0]) == 6


def test_an_image_that_would_fill_the_memory(tmp_path):
    """A PNG of 30000 x 30000 pixels in a hundred bytes of header."""
    write_voc(tmp_path / 'mine', scenes())
    head = b'IHDR' + struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + head + struct.pack('>I', zlib.crc32(head))
    body = b'\x89PNG\r\n\x1a\n' + chunk + b'\0\0\0\0IDAT\x35\xaf\x06\x1e'
    (tmp_path / 'mine/JPEGImages/bomb.png').write_bytes(body)
    (tmp_path / 'mine/Annotations/bomb.xml').write_text(
        voc_xml('bomb.png', (30000, 30000), [])
    )
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    assert [f.file for f in report.findings] == ['JPEGImages/bomb.png']
    assert 'decompression bomb' in report.findings[0].problem


def test_places_that_cannot_be_written_to(tmp_path):
    write_voc(tmp_path / 'mine', scenes(3))
    (tmp_path / 'circle').symlink_to('circle')
    bad = ['circle', 'circle/out', 'x' * 300, '/proc/out', '/dev/null', '/dev/null/out']
    for out in (tmp_path / name for name in bad):
        with pytest.raises(UserError, match='-o '):
            prepare(DataOptions(tmp_path / 'mine', out))
    with pytest.raises(UserError, match='there is no folder'):
        prepare(DataOptions(tmp_path / ('x' * 300), tmp_path / 'out'))


@pytest.mark.parametrize(
    'report', ['[' * 100_000, '[]', '{"tool": 1, "tool": 2}', None]
)
def test_a_report_that_is_not_ours(tmp_path, report):
    write_voc(tmp_path / 'mine', scenes(3))
    order = DataOptions(tmp_path / 'mine', tmp_path / 'out', force=True)
    prepare(order)
    place = tmp_path / 'out/report.json'
    place.unlink()
    os.mkfifo(place) if report is None else place.write_text(report)
    with pytest.raises(UserError, match='which this command did not write'):
        prepare(order)


def test_small_files_that_would_fill_the_memory(tmp_path):
    """A YAML that merges ten times ten times, and lines that mean nothing."""
    write_yolo(tmp_path / 'yolo', scenes(3))
    levels = ''.join(
        f'k{i}: &k{i}\n  <<: [{f"*k{i - 1}, " * 10}]\n' for i in range(1, 12)
    )
    (tmp_path / 'yolo/data.yaml').write_text(
        f'k0: &k0 {{a: 1}}\n{levels}names: [tree, shrub]\n'
    )
    (tmp_path / 'yolo/labels/photo_0.txt').write_text('0\n' * 100_000)
    report = prepare(DataOptions(tmp_path / 'yolo', tmp_path / 'out'))
    told = [f for f in report.findings if 'a class and a box' in f.problem]
    assert len(told) == 21
    assert sum(f.count for f in told) == 100_000
