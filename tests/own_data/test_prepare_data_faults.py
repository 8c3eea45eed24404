"""What is wrong in one's own folder is told, and costs nothing but itself."""

import io
import json
from pathlib import Path

import mmcv
import numpy as np
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
from PIL import Image
from test_prepare_data import mmdet_reads

from mmdet_backbones.own_data.images import look_at
from mmdet_backbones.own_data.prepare import DataOptions, prepare

SIZE = (100, 80)
BOX = ('tree', 10, 20, 40, 60)


def pixels(seed, size=SIZE):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def plant(root, name, content=None, boxes=(BOX,), size=SIZE, xml=None):
    """Put an image and its XML into a folder; bytes stand for themselves."""
    if content is None:
        draw(root / 'JPEGImages' / name, size, boxes)
    else:
        (root / 'JPEGImages' / name).write_bytes(content)
    xml = voc_xml(name, size, boxes) if xml is None else xml
    xml = xml.encode() if isinstance(xml, str) else xml
    (root / 'Annotations' / f'{Path(name).stem}.xml').write_bytes(xml)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.fixture
def faulty(tmp_path):
    """Six good images and twelve faults, in a folder as in Pascal VOC."""
    root = tmp_path / 'mine'
    write_voc(root, scenes())
    (root / 'classes.txt').write_text('tree\nshrub\n')
    jpeg = encoded(pixels(1), 'JPEG')
    plant(root, 'truncated.jpg', jpeg[: len(jpeg) // 2])
    (root / 'Annotations/missing.xml').write_text(voc_xml('missing.png', SIZE, [BOX]))
    plant(root, 'inverted.png', boxes=[BOX, ('tree', 50, 20, 30, 60)])
    plant(root, 'outside.png', boxes=[BOX, ('tree', 150, 20, 190, 60),
                                      ('tree', 80, 60, 130, 90)])  # fmt: skip
    plant(root, 'unknown.png', boxes=[BOX, ('unicorn', 30, 20, 60, 60)])
    plant(root, 'twice.png')
    (root / 'JPEGImages/twice.jpg').write_bytes(encoded(pixels(2), 'JPEG'))
    plant(root, 'empty.png', b'')
    latin = voc_xml('latin.png', SIZE, [BOX]).replace('latin.png', 'Wäldchen.png')
    plant(root, 'latin.png', xml=latin.encode('latin-1'))
    deep = np.arange(8000, dtype=np.uint16).reshape(80, 100) * 8
    plant(root, 'deep.png', encoded(deep, 'PNG'))
    plant(root, 'grey.png', encoded(pixels(3)[..., 0], 'PNG'))
    plant(root, 'turned.jpg', encoded(pixels(4), 'JPEG', exif=exif(6)))
    plant(root, 'nothing.png', boxes=[])
    return root


FAULTS = {
    ('JPEGImages/truncated.jpg', 'truncated'): 'left out',
    ('Annotations/missing.xml', 'no image for it'): 'left out',
    ('Annotations/inverted.xml', 'inverted box: 50, 20, 30, 60'): 'box dropped',
    ('Annotations/outside.xml', 'box outside the image: 150'): 'box dropped',
    ('Annotations/outside.xml', 'reaches out of the image: 80'): 'box clipped',
    ('Annotations/unknown.xml', 'not listed: unicorn'): 'box dropped',
    ('JPEGImages/twice.jpg', 'duplicate name'): 'left out',
    ('JPEGImages/empty.png', 'empty file'): 'left out',
    ('Annotations/latin.xml', 'not UTF-8'): 'read as Latin-1',
    ('JPEGImages/deep.png', '16-bit image'): 'kept',
    ('JPEGImages/grey.png', 'grey image'): 'kept',
    ('JPEGImages/turned.jpg', 'EXIF rotation'): 'kept: boxes turned',
    ('JPEGImages/nothing.png', 'zero boxes'): 'kept',
}


def test_twelve_planted_faults_are_all_told(tmp_path, faulty):
    before = snapshot(faulty)
    out = tmp_path / 'out'
    report = prepare(DataOptions(faulty, out, val_share=0.3))
    for (file, problem), done in FAULTS.items():
        told = [f for f in report.findings if f.file == file and problem in f.problem]
        assert len(told) == 1, (file, problem, report.findings)
        assert told[0].done.startswith(done)
    # The 16-bit picture is grey too; nothing else is told.
    assert len(report.findings) == len(FAULTS) + 1
    assert snapshot(faulty) == before

    found, _ = read_back_sizes(out)
    good = {f'photo_{i}.png' for i in range(6)}
    kept = {'inverted', 'outside', 'unknown', 'twice', 'latin', 'deep', 'grey'}
    wanted = good | {f'{name}.png' for name in (*kept, 'nothing')} | {'turned.jpg'}
    assert found.keys() == wanted
    for name in (*kept - {'outside'},):
        assert found[f'{name}.png'] == [BOX]
    assert found['outside.png'] == [BOX, ('tree', 80, 60, 100, 80)]
    assert found['nothing.png'] == []
    for split, figures in report.splits.items():
        dataset = mmdet_reads(out, split)
        entries = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert len(entries) == figures.images
        assert sum(len(entry['instances']) for entry in entries) == figures.boxes
        for entry in entries:
            shape = mmcv.imread(entry['img_path']).shape
            assert shape == (entry['height'], entry['width'], 3)


def read_back_sizes(out):
    """Read it back although Pillow does not turn pictures."""
    found = {}
    for split in ('train', 'val'):
        content = json.loads((out / f'annotations/{split}.json').read_text())
        names = {c['id']: c['name'] for c in content['categories']}
        images = {i['id']: i['file_name'] for i in content['images']}
        found |= {name: [] for name in images.values()}
        for entry in content['annotations']:
            x, y, width, height = entry['bbox']
            box = (names[entry['category_id']], x, y, x + width, y + height)
            found[images[entry['image_id']]].append(box)
    return found, None


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
@pytest.mark.parametrize('frame', ['stored', 'shown'])
def test_boxes_lie_on_what_mmdet_shows_of_a_turned_picture(
    tmp_path, orientation, frame
):
    """mmcv's default flag turns the picture; the bright object must be in its box."""
    root = tmp_path / 'mine'
    write_voc(root, scenes(2))
    array = np.zeros((80, 100, 3), dtype=np.uint8)
    array[20:60, 10:25] = 255
    picture = encoded(array, 'PNG', exif=exif(orientation))
    shown = mmcv.imfrombytes(picture)
    assert shown.shape == (100, 80, 3)
    size, box = SIZE, ('tree', 10, 20, 25, 60)
    if frame == 'shown':
        rows, columns = (np.flatnonzero(shown[..., 0].any(axis=k)) for k in (1, 0))
        size = (80, 100)
        box = ('tree', columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    plant(root, 'turned.png', picture, [box], size)
    report = prepare(DataOptions(root, tmp_path / 'out'))
    assert report.findings[0].problem == f'EXIF rotation (orientation {orientation})'
    x0, y0, x1, y1 = (
        int(v) for v in read_back_sizes(tmp_path / 'out')[0]['turned.png'][0][1:]
    )
    assert shown[y0:y1, x0:x1].min() == 255
    assert shown.sum() == shown[y0:y1, x0:x1].sum()


def bomb(entities):
    return (
        f'<!DOCTYPE annotation [{entities}]><annotation><size><width>100</width>'
        '<height>80</height></size><object><name>&c;</name></object></annotation>'
    )


@pytest.mark.parametrize(
    'entities',
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">',
        '<!ENTITY c SYSTEM "file:///etc/passwd">',
        '<!ENTITY % d SYSTEM "http://127.0.0.1:9/x"> %d;',
    ],
    ids=['expansion', 'file', 'address'],
)
def test_xml_with_entities_is_refused(tmp_path, entities):
    root = tmp_path / 'mine'
    write_voc(root, scenes())
    plant(root, 'bomb.png', xml=bomb(entities))
    report = prepare(DataOptions(root, tmp_path / 'out'))
    told = {f.file: f.problem for f in report.findings}
    assert 'entities' in told['Annotations/bomb.xml']
    assert told['JPEGImages/bomb.png'] == 'its XML cannot be used'
    assert len(read_back(tmp_path / 'out')[0]) == 6
    assert 'root:' not in (tmp_path / 'out/report.json').read_text()


@pytest.mark.parametrize(
    ('xml', 'problem'),
    [
        (b'', 'empty file'),
        (b'<annotation><size>', 'damaged XML'),
        (b'<html></html>', 'another kind: <html>'),
        (voc_xml('odd.png', (50, 40), [BOX]).encode(), 'drawn on 50 x 40 pixels'),
        (voc_xml('odd.png', SIZE, [('h\xf6he', 1, 2, 30, 40)]).encode('latin-1'),
         'save it as UTF-8'),
    ],
)  # fmt: skip
def test_xml_that_cannot_be_used(tmp_path, xml, problem):
    root = tmp_path / 'mine'
    write_voc(root, scenes())
    plant(root, 'odd.png', xml=xml)
    report = prepare(DataOptions(root, tmp_path / 'out'))
    assert any(problem in f.problem for f in report.findings)
    assert len(read_back(tmp_path / 'out')[0]) == 6


def test_declared_encodings_are_read(tmp_path):
    root = tmp_path / 'mine'
    write_voc(root, scenes())
    text = voc_xml('wide.png', SIZE, [('橡树', *BOX[1:])])
    plant(root, 'wide.png', xml=text.encode('utf-16'))
    declared = '<?xml version="1.0" encoding="GBK"?>' + text.replace('wide', 'gbk')
    plant(root, 'gbk.png', xml=declared.encode('gbk'))
    report = prepare(DataOptions(root, tmp_path / 'out'))
    found, _ = read_back(tmp_path / 'out')
    assert found['wide.png'] == found['gbk.png'] == [('橡树', *BOX[1:])]
    assert all(f.problem.startswith('the same picture') for f in report.findings)


def test_faults_of_the_other_formats(tmp_path):
    write_yolo(tmp_path / 'yolo', scenes())
    label = tmp_path / 'yolo/labels/photo_0.txt'
    label.write_text('9 .5 .5 .2 .2\nnan 1 2 3 4\n0 .5 .5 .2 .2\n0 .5 .5 0 .2\n')
    (tmp_path / 'yolo/labels/photo_1.txt').write_text('')
    (tmp_path / 'yolo/labels/photo_2.txt').unlink()
    write_labelme(tmp_path / 'labelme', scenes())
    (tmp_path / 'labelme/photo_0.json').write_text('{"shapes": [')
    path = tmp_path / 'labelme/photo_1.json'
    content = json.loads(path.read_text())
    content['shapes'].append(dict(label='tree', shape_type='point', points=[[1, 2]]))
    path.write_text(json.dumps(content))
    write_coco(tmp_path / 'coco', made := scenes())
    content = coco_json(made)
    content['annotations'][0]['category_id'] = 99
    content['annotations'][1]['bbox'] = [1, 2, None, 4]
    content['annotations'].append(dict(content['annotations'][2], id=50, image_id=1234))
    content['images'].append(dict(content['images'][3], id=900))
    content['images'].append(
        dict(id=901, file_name='../../etc/passwd', width=3, height=3)
    )
    (tmp_path / 'coco/annotations/instances_all.json').write_text(json.dumps(content))
    wanted = dict(
        yolo=['number 9', 'line 2 is not', 'empty box', 'zero boxes', 'no label file'],
        labelme=['damaged JSON', "'point' with 1 points", 'its JSON cannot'],
        coco=['number 99', 'without a box', 'not listed', 'lists it again',
              'no such image'],
    )  # fmt: skip
    for kind, problems in wanted.items():
        report = prepare(DataOptions(tmp_path / kind, tmp_path / f'out_{kind}'))
        told = [f'{f.file}: {f.problem}' for f in report.findings]
        for problem in problems:
            assert any(problem in line for line in told), (problem, told)
        assert len(read_back(tmp_path / f'out_{kind}')[0]) == 6 - (kind == 'labelme')


def test_names_in_files_cannot_command_the_terminal(tmp_path, run_tool):
    root = tmp_path / 'mine'
    write_voc(root, scenes())
    plant(root, 'odd.png', boxes=[('[red]\x1b[2Jevil', *BOX[1:])])
    xml = root / 'Annotations/odd.xml'
    xml.write_bytes(xml.read_bytes().replace(b'\x1b', b'\xc2\x9b'))
    done = run_tool('tools/prepare_data.py', str(root), '-o', str(tmp_path / 'out'),
                    '--classes', 'tree')  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '\x9b' not in done.stdout
    assert '[red]' in done.stdout


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_the_size_is_what_mmcv_returns(tmp_path, kind, orientation):
    path = tmp_path / 'picture'
    path.write_bytes(encoded(pixels(0), kind, exif=exif(orientation)))
    height, width = mmcv.imread(str(path)).shape[:2]
    facts = look_at(path)
    assert facts.size == (width, height)
    assert facts.stored == SIZE
    stored = mmcv.imfrombytes(encoded(pixels(0), kind))
    turned = not np.array_equal(stored, mmcv.imread(str(path)))
    assert facts.orientation == (orientation if turned else 1)
    assert len(facts.remarks) == (orientation != 1 and not turned)
