"""A value counts by what it means, whatever type it has, or is one finding."""

import json

import numpy as np
import pytest
from own_folders import (
    WRITERS,
    load,
    read_back,
    same_boxes,
    scenes,
    state_of,
)
from pycocotools import mask as masks

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.prepare import DataOptions, prepare

MADE = scenes(4)
BOXES = {name: boxes for name, (_, boxes) in MADE.items()}
WIDTH, HEIGHT = MADE['photo_0.png'][0]


def edited(change, pattern='*.json'):
    """Change the content of the first JSON file."""

    def edit(root):
        path = sorted(root.rglob(pattern))[0]
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return edit


def written(name, content):
    def write(root):
        (root / name).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )

    return write


def replaced(old, new):
    def replace(root):
        path = sorted(root.rglob('*.xml'))[0]
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return replace


def first(part, **values):
    return edited(lambda content: content[part][0].update(values))


def every(part, name, change):
    def edit(content):
        for entry in content[part]:
            entry[name] = change(entry[name])

    return edited(edit)


def both(*edits):
    return lambda root: [edit(root) for edit in edits]


def reencoded(encoding):
    def write(root):
        path = sorted(root.rglob('*.json'))[0]
        path.write_bytes(path.read_text().encode(encoding))

    return write


MEANT = {
    ('coco', 'iscrowd as text'): first('annotations', iscrowd='0'),
    ('coco', 'iscrowd as a word'): first('annotations', iscrowd=' False'),
    ('coco', 'iscrowd null'): first('annotations', iscrowd=None, ignore=False),
    ('coco', 'ids of categories as text'): every('categories', 'id', str),
    ('coco', 'ids of classes as text'): every('annotations', 'category_id', str),
    ('coco', 'ids with a point'): every('annotations', 'category_id', float),
    ('coco', 'ids of images as text'): every('annotations', 'image_id', str),
    ('coco', 'words as ids'): both(
        every('annotations', 'image_id', 'im{}'.format),
        every('images', 'id', 'im{}'.format)),
    ('coco', 'sides as text'): every('annotations', 'bbox', lambda b: [*map(str, b)]),
    ('coco', 'sizes as text'): both(
        every('images', 'width', str), every('images', 'height', float)),
    ('coco', 'no sizes'): first('images', width=None, height=None),
    ('coco', 'a mark of UTF-8'): reencoded('utf-8-sig'),
    ('coco', 'UTF-16'): reencoded('utf-16'),
    ('coco', 'backslashes'): every('images', 'file_name', '.\\images\\{}'.format),
    ('voc', 'difficult as a word'): replaced(
        '<difficult>0</difficult>', '<difficult> false </difficult>'),
    ('voc', 'no difficult'): replaced('<difficult>0</difficult>', ''),
    ('voc', 'the same size twice'): replaced(
        '<size>',
        f'<size><width>{WIDTH}</width><height>{HEIGHT}</height></size><size>'),
    ('voc', 'a size with a point'): replaced(
        f'<width>{WIDTH}<', f'<width>{WIDTH}.0<'),
    ('voc', 'a wide encoding that it has not'): replaced(
        '<annotation>', '<?xml version="1.0" encoding="UTF-16"?><annotation>'),
    ('yolo', 'names by number as text'): written(
        'data.yaml', 'names: {"1": shrub, "0": tree}'),
    ('labelme', 'sizes as text'): edited(lambda c: c.update(
        imageWidth=str(c['imageWidth']), imageHeight=float(c['imageHeight']))),
    ('labelme', 'points as text'): every(
        'shapes', 'points', lambda p: [[str(v) for v in xy] for xy in p]),
}  # fmt: skip


def outlined(outline):
    """Give every object a triangle, and the first one another outline."""

    def edit(content):
        for i, entry in enumerate(content['annotations']):
            entry['segmentation'] = [[1, 1, 30, 1, 30, 30]] if i else outline

    return edited(edit)


def runs(*counts, size=(HEIGHT, WIDTH)):
    return outlined(dict(size=[*size], counts=[*counts]))


PIXELS = WIDTH * HEIGHT
TOLD = {
    ('coco', 'iscrowd or ignore'): [
        first('annotations', iscrowd=value) for value in ('perhaps', 2, [0], {})],
    ('coco', 'annotation without a box'): [
        first('annotations', bbox=value) for value in (
            dict(x=1, y=2, w=3, h=4), '1234', [1, 2, 3], [True, True, 30, 30],
            [float('nan'), 1, 9, 9], [1, 2, float('inf'), 9], [1, 2, 10**400, 9],
            [1, 2, '0x9', 9], [1, 2, '1_0', 9], [[1], 2, 3, 4], None)],
    ('coco', 'category without id or name'): [
        first('categories', name=value) for value in (
            None, {}, ['tree'], True, '', ' ', 'a\ud800b')],
    ('coco', 'category id with several names: 7'): [
        edited(lambda c: c['categories'].append(dict(id='7', name='bush')))],
    ('coco', 'width and height that are no size'): [
        first('images', width=value, height=value) for value in (
            True, -5, 0, 'wide', [3], float('nan'))],
    ('coco', 'was drawn on'): [first('images', width=str(WIDTH + 1))],
    ('coco', 'image without id or file_name'): [
        first('images', file_name=value) for value in (None, {}, '', False)],
    ('coco', 'duplicate image id: 10'): [
        edited(lambda c: c['images'][1].update(id='10'))],
    ('coco', 'no such image'): [
        first('images', file_name=v) for v in (
            'a\ud800b', 'x' * 5000, 'a\0b', '../..')],
    ('coco', 'outline that cannot be drawn: a polygon of 7 numbers'): [
        outlined([[1, 2, 3, 4, 5, 6, 7]])],
    ('coco', 'outline that cannot be drawn: run lengths'): [
        runs(-5, 10, PIXELS - 5), runs(0, 10**9), runs(PIXELS - 1), runs(),
        runs(0, PIXELS + WIDTH, size=(HEIGHT + 1, WIDTH)),
        *(outlined(dict(size=[HEIGHT, WIDTH], counts=c)) for c in (
            None, 5, '\x7f~~', 'oooooooooooo', 'P', '\u20ac', '0'))],
    ('coco', 'outline that cannot be drawn'): [
        outlined(v) for v in ('abc', [['a'] * 6], [5, 'x'], [[1, 2], None], True)],
    ('voc', '<difficult>'): [replaced(
        '<difficult>0<', f'<difficult>{value}<') for value in ('2', 'perhaps')],
    ('voc', 'several <size> <width>'): [
        replaced('<size>', '<size><width>5</width><height>5</height></size><size>')],
    ('voc', 'several <bndbox> <xmin>'): [
        replaced('<bndbox>', '<bndbox><xmin>3</xmin>')],
    ('voc', 'several <name>'): [replaced('<object>', '<object><name>bush</name>')],
    ('voc', 'object within an object'): [
        replaced('<object>', '<object><object><name>x</name></object>')],
    ('voc', 'box that is not four numbers'): [
        replaced('<xmin>', f'<xmin>{value}') for value in ('x', '0x', '1e400', 'nan')],
    ('voc', 'gives no size'): [
        replaced(f'<width>{WIDTH}<', f'<width>{value}<') for value in (
            'wide', '-5', '1.5', '')],
    ('voc', 'nor what it declares'): [
        replaced('<annotation>', f'<?xml version="1.0" encoding="{e}"?><annotation>')
        for e in ('undefined', 'idna', 'punycode', 'hex', 'nothing')],
    ('yolo', 'line 1 is not a class and a box'): [
        written('labels/photo_0.txt', line) for line in (
            '0.5 .5 .5 .2 .2', 'nan .5 .5 .2 .2', '1_0 .5 .5 .2 .2', '0 .5 .5 .2',
            '0 .5 .5 .2 inf', '0 .5 .5 .2 1e400', 'tree .5 .5 .2 .2', '0,.5,.5,.2,.2')],
    ('yolo', 'class that is not listed: number'): [
        written('labels/photo_0.txt', f'{n} .5 .5 .2 .2') for n in (-1, 2, 10**30)],
    ('yolo', 'not UTF-8'): [written('labels/photo_0.txt', b'0 .5 .5 .2 .2 \xff')],
    ('yolo', 'class numbers without a name: 1'): [
        written('data.yaml', text) for text in (
            'names: [tree, null]', 'names: [tree, [a, b]]', 'names: {0: tree, 1: {}}')],
    ('yolo', 'class under what is no number'): [
        written('data.yaml', 'names: {0: tree, 1: shrub, true: bush}')],
    ('labelme', 'shape without label or points'): [
        *(first('shapes', label=value) for value in (None, [], {}, True, '')),
        *(first('shapes', points=value) for value in (
            None, 5, [[1, 2, 3]] * 3, [[True, 1], [9, 9]],
            [[float('nan'), 1], [9, 9]])),
        first('shapes', shape_type=['polygon'])],
    ('labelme', 'encloses nothing'): [
        first('shapes', shape_type=value, points=[[1, 1], [9, 9], [5, 5]])
        for value in ('point', 'linestrip', 'points', 'something')],
    ('labelme', 'damaged JSON'): [
        written('photo_0.json', text) for text in (
            '', '{"shapes": [', '{"shapes": [], "shapes": []}', b'\0' * 100, b'\xff{}',
            '{"shapes": ' + '[' * 100_000 + ']' * 100_000 + '}',
            '{"shapes": [' + '9' * 5000 + ']}')],
    ('labelme', 'imageWidth and imageHeight'): [
        edited(lambda c: c.update(imageWidth=-1))],
}  # fmt: skip


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('folders')
    for kind, writer in WRITERS.items():
        writer(root / kind, MADE)
    return root


@pytest.fixture
def prepared(tmp_path, folders):
    """Prepare a changed copy of a folder, and see that the copy stays as it is."""
    import shutil

    def run(kind, change, i=0):
        root, out = tmp_path / f'mine{i}', tmp_path / f'out{i}'
        shutil.copytree(folders / kind, root)
        change(root)
        before = state_of(root)
        try:
            report = prepare(DataOptions(root, out, val_share=0.4))
        finally:
            assert state_of(root) == before
        return report, out

    return run


@pytest.mark.parametrize(('kind', 'what'), MEANT, ids=lambda value: value)
def test_a_value_of_another_type_is_read_by_its_meaning(prepared, kind, what):
    report, out = prepared(kind, MEANT[kind, what])
    same_boxes(read_back(out)[0], BOXES)
    assert [f for f in report.findings if f.done != 'not used'] == []
    assert set(report.classes) == {'tree', 'shrub'}


@pytest.mark.parametrize(('kind', 'problem'), TOLD, ids=lambda value: value[:40])
def test_a_value_that_means_nothing_is_one_finding(prepared, kind, problem):
    for i, change in enumerate(TOLD[kind, problem]):
        report, out = prepared(kind, change, i)
        told = [f for f in report.findings if problem in f.problem]
        assert 1 <= len(told) <= 2, (i, report.findings)
        assert all(f.file for f in told)
        assert not report.masks
        for split in ('train', 'val'):
            load(out / f'annotations/{split}.json')


def test_a_finding_in_a_file_of_many_says_where(prepared):
    def spoil(content):
        content['annotations'][1]['bbox'] = None
        content['annotations'][2]['bbox'] = [500, 500, 9, 9]

    report, _ = prepared('coco', edited(spoil))
    places = {f.problem.partition(':')[0]: f.place for f in report.findings}
    assert places['annotation without a box'] == 'annotations[1]'
    assert places['box outside the image'] == 'images/photo_1.png'


def test_two_ids_of_one_name_are_one_class(prepared):
    report, out = prepared('coco', edited(
        lambda c: c['categories'][1].update(name=' tree')))  # fmt: skip
    assert report.classes == ('tree',)
    assert sum(map(len, read_back(out)[0].values())) == 7


@pytest.mark.parametrize('text', [
    'names: [tree, shrub]\nnames: [shrub, tree]', b'names: [h\xf6he, b]',
    'x: !!python/object/apply:os.system [exit]\nnames: [tree, shrub]',
    'x: !!timestamp x\nnames: [tree, shrub]', 'names: ' + '[' * 5000, 'names: [null]',
    'names: tree', '\0',
])  # fmt: skip
def test_a_yaml_that_cannot_be_read_is_named(prepared, text):
    with pytest.raises(
        UserError, match='does not say what its class numbers'
    ) as caught:
        prepared('yolo', written('data.yaml', text))
    assert 'names: ' in str(text)[:7] or 'data.yaml: YAML that' in str(caught.value)


def test_words_of_a_yaml_are_names(prepared):
    report, _ = prepared('yolo', written('data.yaml', 'names: [no, 2020-01-01]'))
    assert report.classes == ('no', '2020-01-01')


def test_run_lengths_of_every_form_are_kept(prepared):
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[5:30, 7:40] = 1
    packed = masks.encode(np.asfortranarray(drawn))
    counts = packed['counts'].decode()
    plain = [7 * HEIGHT + 5, *[25, HEIGHT - 25] * 32, 25]
    plain.append(PIXELS - sum(plain))
    for i, form in enumerate((counts, plain, [float(run) for run in plain])):
        size = [HEIGHT, str(WIDTH)]
        report, out = prepared('coco', outlined(dict(size=size, counts=form)), i)
        assert report.masks
        assert report.findings == []
        for split in ('train', 'val'):
            coco = load(out / f'annotations/{split}.json')
            for entry in coco.anns.values():
                if isinstance(entry['segmentation'], dict):
                    assert np.array_equal(coco.annToMask(entry), drawn)
                    assert entry['area'] == drawn.sum()
