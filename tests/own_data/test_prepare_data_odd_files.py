"""What lies in a folder and is no image or annotation is told and kept out."""

import json
import os
import shutil
import socket
import tracemalloc
import unicodedata

import numpy as np
import pytest
from own_folders import (
    WRITERS,
    draw,
    load,
    printed,
    read_back,
    scenes,
    snapshot,
    state_of,
    voc_xml,
    write_coco,
    write_labelme,
    write_voc,
    write_yolo,
)
from PIL import Image

from mmdet_backbones.own_data.prepare import DataOptions, prepare
from mmdet_backbones.own_data.records import Notes
from mmdet_backbones.own_data.report import DataReport, figures

BOX = ('tree', 10, 20, 40, 60)


def noise(size=(100, 80), mode='RGB', seed=0):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)
                           ).convert(mode)  # fmt: skip


def odd_files(root):
    """Put one of everything beside the images; return what is to be told of it."""
    images, xmls = root / 'JPEGImages', root / 'Annotations'
    for name in ('pipe.png', 'device.png', 'loop.png', 'nowhere.png', 'memory.png',
                 'folder.png', 'cmyk.jpg', 'pages.tif', 'moving.webp', 'huge.png',
                 'script.jpg', 'truncated.jpg', 'frames.png'):  # fmt: skip
        (xmls / name).with_suffix('.xml').write_text(voc_xml(name, (100, 80), [BOX]))
    os.mkfifo(images / 'pipe.png')
    (images / 'device.png').symlink_to('/dev/zero')
    (images / 'loop.png').symlink_to('loop.png')
    (images / 'nowhere.png').symlink_to('nothing.png')
    (images / 'memory.png').symlink_to('/proc/self/mem')
    (images / 'folder.png').mkdir()
    (images / 'circle').symlink_to(root, target_is_directory=True)
    os.mkfifo(xmls / 'pipe2.xml')
    os.mkfifo(root / 'classes.txt')
    noise(mode='CMYK', seed=1).save(images / 'cmyk.jpg')
    more = [noise(seed=9)]
    noise(seed=2).save(images / 'pages.tif', save_all=True, append_images=more)
    noise(seed=3).save(images / 'moving.webp', save_all=True, append_images=more)
    noise(seed=4).save(images / 'film.gif', save_all=True, append_images=more)
    noise(seed=5).save(images / 'frames.png', save_all=True, append_images=more)
    with (images / 'huge.png').open('wb') as file:
        noise(seed=6).save(file, 'PNG')
        file.truncate(20 << 30)
    with (root / 'data.json').open('wb') as file:
        file.truncate(20 << 30)
    (images / 'script.jpg').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9'
    )
    noise(seed=7).save(images / 'truncated.jpg')
    os.truncate(images / 'truncated.jpg', 900)
    return {
        'JPEGImages/pipe.png': 'no file: a pipe',
        'JPEGImages/device.png': 'no file: a device',
        'JPEGImages/loop.png': 'symbolic links',
        'JPEGImages/nowhere.png': 'no file: No such file',
        'JPEGImages/memory.png': 'empty file',
        'JPEGImages/folder.png': 'folder named like a file',
        'Annotations/pipe2.xml': 'no file: a pipe',
        'classes.txt': 'no file: a pipe',
        'JPEGImages/cmyk.jpg': 'CMYK',
        'JPEGImages/pages.tif': 'several pictures in one file',
        'JPEGImages/moving.webp': 'several pictures in one file',
        'JPEGImages/frames.png': 'several pictures in one file',
        'JPEGImages/film.gif': 'format that is not read',
        'JPEGImages/huge.png': 'too many for its pixels',
        'JPEGImages/script.jpg': 'no known format',
        'JPEGImages/truncated.jpg': 'truncated',
    }


def test_everything_odd_is_told_and_costs_only_itself(tmp_path):
    root = tmp_path / 'mine'
    write_voc(root, scenes(3))
    wanted = odd_files(root)
    with socket.socket(socket.AF_UNIX) as plug:
        # The name of a socket is short.
        here = os.getcwd()
        os.chdir(root)
        plug.bind('plug.xml')
        os.chdir(here)
    wanted['plug.xml'] = 'no file: a socket'
    tracemalloc.start()
    report = prepare(DataOptions(root, tmp_path / 'out'))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 << 20
    for name, problem in wanted.items():
        told = [f for f in report.findings if f.file == name and problem in f.problem]
        assert len(told) == 1, (name, report.findings)
    found = {name for split in ('train', 'val')
             for name in os.listdir(tmp_path / 'out' / split)}  # fmt: skip
    kept = {'cmyk.jpg', 'pages.tif', 'moving.webp', 'frames.png'}
    assert found == kept | {f'photo_{i}.png' for i in range(3)}


def test_names_of_every_spelling_find_each_other(tmp_path):
    """One tool writes an accent as part of its letter, another one behind it."""
    made = {f'phöto {i}.png': scene for i, scene in enumerate(scenes(4).values())}
    for kind, writer in WRITERS.items():
        writer(tmp_path / kind, made)
        apart = {unicodedata.normalize('NFD', name): name for name in made}
        for other, name in apart.items():
            path = next((tmp_path / kind).rglob(name))
            path.rename(path.with_name(other))
        report = prepare(DataOptions(tmp_path / kind, tmp_path / f'out_{kind}'))
        assert [f for f in report.findings if f.done != 'not used'] == []
        assert read_back(tmp_path / f'out_{kind}')[0].keys() == apart.keys()


def test_names_that_are_not_utf_8(tmp_path):
    root = tmp_path / 'mine'
    write_voc(root, scenes(3))
    for folder, end in (('JPEGImages', '.png'), ('Annotations', '.xml')):
        path = root / folder / f'photo_0{end}'
        path.rename(path.with_name(os.fsdecode(b'photo_\xff') + end))
    noise().save(root / 'JPEGImages' / os.fsdecode(b'alone_\xfe.png'))
    report = prepare(DataOptions(root, tmp_path / 'out', val_share=0.4))
    assert {'photo_%FF.png', 'photo_1.png'} < read_back(tmp_path / 'out')[0].keys()
    assert [f.problem for f in report.findings] == ['image without annotation']
    str(report.to_dict()).encode()


def clashing(root, kind):
    """Images whose names, stems or spelling are those of others, or of our files."""
    made = scenes(3)
    big = ((300, 100), [('tree', 5, 5, 40, 40)])
    small = ((60, 50), [('tree', 5, 5, 40, 40)])
    names = ['big.png', 'big.png_x00000_y00000.png', 'PHOTO_0.png', 'annotations.png',
             'train.png', 'report.json.png', 'examples.png', 'photö.png',
             unicodedata.normalize('NFD', 'photö.png')]  # fmt: skip
    # The small one stands first: its link lies there when the tiles are written.
    made = {names[1]: small, names[0]: big, **made}
    made |= dict.fromkeys(names[2:], small)
    WRITERS[kind](root, made)
    if kind == 'voc':
        for name, (size, boxes) in scenes(2, seed=5).items():
            draw(root / 'a/JPEGImages' / name, size, boxes)
            (root / 'a/Annotations').mkdir(parents=True, exist_ok=True)
            xml = voc_xml(name, size, boxes)
            (root / 'a/Annotations' / name).with_suffix('.xml').write_text(xml)
    return made


@pytest.mark.parametrize('tile', [None, 100])
@pytest.mark.parametrize('kind', WRITERS)
def test_nothing_is_written_through_a_link(tmp_path, kind, tile):
    root = tmp_path / 'mine'
    made = clashing(root, kind)
    before = state_of(root)
    for force in (False, True):
        prepare(DataOptions(root, tmp_path / 'out', tile=tile, force=force, seed=1))
        assert state_of(root) == before
    names = [i['file_name'] for split in ('train', 'val') for i in load(
        tmp_path / f'out/annotations/{split}.json').imgs.values()]  # fmt: skip
    assert len(set(names)) == len(names) == len(made) + 2 * (tile is not None) + 2 * (
        kind == 'voc')  # fmt: skip
    assert read_back(tmp_path / 'out')[0].keys() == set(names)


def test_a_link_to_the_folder_that_is_written_is_not_read(tmp_path):
    root, out = tmp_path / 'mine', tmp_path / 'out'
    write_coco(root, scenes(3))
    prepare(DataOptions(root, out))
    (root / 'again').symlink_to(out, target_is_directory=True)
    (root / 'images/one.png').symlink_to(next((out / 'train').iterdir()))
    before = state_of(root)
    report = prepare(DataOptions(root, out, force=True))
    assert state_of(root) == before
    assert [f.file for f in report.findings] == ['images/one.png']
    assert 'written to' in report.findings[0].problem


def test_a_disk_without_links_gets_copies(tmp_path, monkeypatch):
    write_voc(tmp_path / 'mine', scenes(3))

    def refuse(*_, **__):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(os, 'link', refuse)
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    made = {n.rsplit('/', 1)[-1]: c for n, c in snapshot(tmp_path / 'mine').items()}
    there = snapshot(tmp_path / 'out')
    copies = [n for n in there if n.startswith(('train/', 'val/'))]
    assert len(copies) == 3
    assert all(there[n] == made[n.rsplit('/', 1)[-1]] for n in copies)


def test_a_hundred_thousand_findings_are_a_few_lines(tmp_path):
    notes = Notes()
    for i in range(100_000):
        notes.add(f'images/{i}.png', f'box outside the image: {i}, 2', 'box dropped')
    for kind in range(5):
        notes.add('a.json', f'rare thing {kind}')
    side = figures([], {}, ('tree',))
    splits = {'train': side, 'val': side}
    report = DataReport(tmp_path, 'coco', ('tree',), False, splits, notes.findings)
    told = printed(report)
    for kind in range(5):
        assert f'1 x rare thing {kind} -> left out' in told
    assert '100000 x box outside the image -> box dropped' in told
    assert 'such as images/0.png: 0, 2' in told
    assert len(told.splitlines()) < 40
    assert len(report.to_dict()['findings']) == 100_005


def test_time_grows_with_the_files_and_not_with_their_square(tmp_path):
    """Many images of one name, and as many annotations of it elsewhere."""
    root, (size, boxes) = tmp_path / 'mine', scenes(1)['photo_0.png']
    draw(root / 'a.png', size, boxes)
    for i in range(150):
        (root / f'images/{i}').mkdir(parents=True)
        os.link(root / 'a.png', root / f'images/{i}/a.png')
        (root / f'other/{i}').mkdir(parents=True)
        (root / f'other/{i}/a.xml').write_text(voc_xml('a.png', size, boxes))
    write_voc(root / 'good', scenes(3))
    report = prepare(DataOptions(root, tmp_path / 'out'))
    assert len(report.findings) < 600
    assert sum(s.images for s in report.splits.values()) == 3


def test_as_many_classes_as_boxes(tmp_path):
    root = tmp_path / 'mine'
    write_labelme(root, scenes(3))
    path = root / 'photo_0.json'
    content = json.loads(path.read_text())
    content['shapes'] = [
        dict(label=f'class {i}', shape_type='rectangle', points=[[1, 1], [40, 40]])
        for i in range(5_000)
    ]
    path.write_text(json.dumps(content))
    report = prepare(DataOptions(root, tmp_path / 'out'))
    assert len(report.classes) == 5_002
    assert len(printed(report).splitlines()) < 40


def test_folders_that_lead_far_away(tmp_path):
    """A link to the whole disk, and folders within folders."""
    root = tmp_path / 'mine'
    write_voc(root, scenes(3))
    (root / 'disk').symlink_to('/', target_is_directory=True)
    (root / 'processes').symlink_to('/proc', target_is_directory=True)
    here = os.getcwd()
    os.chdir(root)
    for _ in range(150):
        os.mkdir('d')
        os.chdir('d')
    os.chdir(here)
    report = prepare(DataOptions(root, tmp_path / 'out'))
    told = {f.file[:9]: f.problem for f in report.findings}
    assert told['disk'] == 'a link to a folder that this one lies in'
    assert told['processes'] == 'a link into the system'
    assert 'folders deep' in told['d/d/d/d/d']
    assert len(told) == 3


def test_names_as_long_as_a_disk_has_them(tmp_path):
    root, (size, boxes) = tmp_path / 'mine', scenes(1)['photo_0.png']
    names = [f'{"x" * 250}.png', f'{"x" * 249}y.png', f'{"e" * 250}.png']
    write_voc(root, {f'{i}.png': (size, boxes) for i in range(3)})
    for i, name in enumerate(names):
        (root / f'JPEGImages/{i}.png').rename(root / 'JPEGImages' / name)
        (root / f'Annotations/{i}.xml').rename(
            root / 'Annotations' / name.replace('.png', '.xml'))  # fmt: skip
    report = prepare(DataOptions(root, tmp_path / 'out', tile=40, val_share=0.4))
    assert sum(s.images for s in report.splits.values()) == len(
        read_back(tmp_path / 'out')[0]) > 6  # fmt: skip


def test_formats_stay_apart_from_hidden_files(tmp_path):
    """What another system puts into every folder is no annotation."""
    for writer in (write_labelme, write_yolo):
        root = tmp_path / writer.__name__
        writer(root, scenes(3))
        (root / '._photo_0.json').write_bytes(b'\0\5\x16\7')
        (root / '.DS_Store').write_bytes(b'\0')
        report = prepare(DataOptions(root, root.with_suffix('.out')))
        assert [f for f in report.findings if f.done != 'not used'] == []
        shutil.rmtree(root)
