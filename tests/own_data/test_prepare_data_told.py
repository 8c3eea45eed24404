"""What is told of one's own folder: findings by kind, copies, and what to do next."""

import json

import numpy as np
import pytest
from own_folders import (
    WRITERS,
    coco_json,
    printed,
    read_back,
    scenes,
    snapshot,
    write_coco,
    write_labelme,
    write_voc,
)
from PIL import Image

from mmdet_backbones.own_data import near_copies
from mmdet_backbones.own_data.near_copies import look_of, pairs_alike
from mmdet_backbones.own_data.prepare import DataOptions, prepare
from mmdet_backbones.own_data.report import ADVERTISED, next_steps


def split_folder(root, kind='coco', **parts):
    """Write a folder with named splits; returns all scenes in it."""
    made = scenes(sum(parts.values()))
    names = [*made]
    for split, count in parts.items():
        chosen, names = names[:count], names[count:]
        WRITERS[kind](root, {name: made[name] for name in chosen}, split)
    return made


@pytest.mark.parametrize('width', [80, 60])
def test_what_is_told_fits_the_terminal(tmp_path, width):
    root = tmp_path / ('a folder with a name of some length' * 3)
    split_folder(root, train=3, val=2, test=2)
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    content['annotations'][0]['bbox'] = [50, 40, 500, 400]
    content['annotations'][1]['category_id'] = 99
    (root / 'annotations/instances_train.json').write_text(json.dumps(content))
    (root / 'train' / f'{"n" * 120}.png').write_bytes(b'')
    report = prepare(DataOptions(root, tmp_path / 'out'))
    lines = printed(report, width).splitlines()
    assert len(report.findings) >= 4
    assert max(map(len, lines)) <= width
    words = ' '.join(' '.join(lines).split())
    for told in ('-> left out', '-> box clipped', '-> box dropped'):
        assert told in words


def test_findings_of_one_kind_are_one_entry(tmp_path):
    write_labelme(tmp_path / 'mine', made := scenes(6))
    for i, name in enumerate(made):
        path = tmp_path / 'mine' / name.replace('.png', '.json')
        content = json.loads(path.read_text())
        point = dict(label='tree', shape_type='point', points=[[i, i]])
        content['shapes'] += [point] * (i + 1)
        path.write_text(json.dumps(content))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    text = printed(report)
    assert text.count('shape that encloses nothing') == 1
    assert '21 x shape that encloses nothing -> shape dropped' in text
    assert "such as photo_0.json, shapes[1]: type 'point' with 1 points" in text
    written = json.loads((tmp_path / 'out/report.json').read_text())
    assert len(written['findings']) == 6
    assert written == json.loads(json.dumps(report.to_dict()))


def test_a_test_split_goes_when_the_folder_has_none_any_more(tmp_path):
    out = tmp_path / 'out'
    split_folder(tmp_path / 'with', train=3, val=2, test=2)
    write_voc(tmp_path / 'without', scenes(4))
    prepare(DataOptions(tmp_path / 'with', out))
    assert sorted(p.name for p in (out / 'test').iterdir()) == [
        'photo_5.png',
        'photo_6.png',
    ]
    (out / 'notes.txt').write_text('mine')
    prepare(DataOptions(tmp_path / 'without', out, force=True))
    assert {n.split('/')[0] for n in snapshot(out)} == {
        'train', 'val', 'annotations', 'examples.png', 'report.json', 'notes.txt'
    }  # fmt: skip
    assert not (out / 'annotations/test.json').exists()


def test_what_to_test_on_stays_apart_where_the_rest_is_drawn(tmp_path):
    made = scenes(8)
    names = list(made)
    write_labelme(tmp_path / 'mine', {n: made[n] for n in names[:6]})
    write_labelme(tmp_path / 'mine', {n: made[n] for n in names[6:]}, 'test')
    prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out', val_share=0.5))
    splits = read_back(tmp_path / 'out')[1]
    assert [n for n, split in splits.items() if split == 'test'] == names[6:]
    assert sorted(splits.values()) == ['test'] * 2 + ['train'] * 3 + ['val'] * 3


def test_a_test_without_a_box_is_left_out(tmp_path):
    made = split_folder(tmp_path / 'mine', train=3, val=2, test=2)
    path = tmp_path / 'mine/annotations/instances_test.json'
    content = json.loads(path.read_text()) | dict(annotations=[])
    path.write_text(json.dumps(content))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / 'out'))
    assert [*report.splits] == ['train', 'val']
    told = [f for f in report.findings if f.file == 'split test']
    assert [(f.problem, f.count) for f in told] == [('no box in the whole split', 2)]
    assert len(read_back(tmp_path / 'out')[0]) == len(made) - 2


def with_categories(root, *categories):
    """Rename the categories of a folder; the first one is of no box."""
    made = scenes(4)
    write_coco(root, made)
    content = coco_json(made)
    given = [
        dict(id=6, name=categories[0][0], supercategory=categories[0][1]),
        *(dict(entry, supercategory=above)
          for entry, (_, above) in
          zip(content['categories'], categories[1:], strict=True)),
    ]  # fmt: skip
    content['categories'] = given
    (root / 'annotations/instances_all.json').write_text(json.dumps(content))
    return prepare(DataOptions(root, root.parent / 'out'))


@pytest.mark.parametrize('above', ['none', '', None])
def test_the_heading_of_categories_is_no_class(tmp_path, above):
    report = with_categories(
        tmp_path / 'mine', ('plants', above), ('', 'plants'), ('', 'plants')
    )
    assert report.classes == ('tree', 'shrub')
    (found,) = report.findings
    assert found.example == 'annotations/instances_all.json: plants'
    assert (found.kind, found.done) == (
        'category without boxes that is the supercategory of others', 'left out'
    )  # fmt: skip


@pytest.mark.parametrize(
    'categories',
    [
        [('bush', 'none'), ('', 'plants'), ('', 'plants')],
        [('plants', 'things'), ('', 'plants'), ('', 'plants')],
        [('bush', 'bush'), ('', 'tree'), ('', 'none')],
    ],
    ids=['above nothing', 'below something', 'of its own'],
)
def test_other_classes_without_boxes_stay(tmp_path, categories):
    report = with_categories(tmp_path / 'mine', *categories)
    assert report.classes == (categories[0][0], 'tree', 'shrub')
    assert report.findings == []


def photograph(seed):
    """A smooth synthetic picture: noise of few pixels, made large."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((240, 180), Image.Resampling.BICUBIC)


@pytest.fixture
def alike(tmp_path):
    """Photographs in train, val and test; two look like one to train on."""
    pytest.importorskip('imagehash')
    root = tmp_path / 'mine'
    made = split_folder(root, 'voc', train=3, val=3, test=2)
    for i, name in enumerate(made):
        photograph(i).save(root / 'JPEGImages' / name)
    for path in (root / 'Annotations').iterdir():
        # Their sizes are others now, which the annotations may leave open.
        before, _, rest = path.read_text().partition('<size>')
        path.write_text(before + rest.partition('</size>')[2])
    brighter = photograph(0).point(lambda value: min(255, value * 11 // 10 + 5))
    brighter.resize((200, 150)).save(root / 'JPEGImages/photo_4.png')
    photograph(2).rotate(0).crop((2, 2, 238, 178)).save(root / 'JPEGImages/photo_7.png')
    return root


def test_pictures_that_look_like_one_to_train_on_are_told(tmp_path, alike):
    report = prepare(DataOptions(alike, tmp_path / 'out'))
    findings = [f for f in report.findings if 'size' not in f.kind]
    told = {f.file: (f.problem, f.done) for f in findings}
    done = 'kept; what is measured on it means little'
    assert told == {
        'JPEGImages/photo_4.png': (
            'looks like a picture in train, is in val: JPEGImages/photo_0.png', done),
        'JPEGImages/photo_7.png': (
            'looks like a picture in train, is in test: JPEGImages/photo_2.png', done),
    }  # fmt: skip
    assert report.not_looked_for == ()


def test_without_imagehash_one_line_says_what_to_install(tmp_path, alike, monkeypatch):
    near_copies.can_look.cache_clear()
    monkeypatch.setattr(near_copies, 'find_spec', lambda name: None)
    try:
        report = prepare(DataOptions(alike, tmp_path / 'out'))
    finally:
        near_copies.can_look.cache_clear()
    assert not any('looks like' in f.problem for f in report.findings)
    assert 'pip install imagehash' in printed(report, 60)
    assert len(report.to_dict()['not_looked_for']) == 1


def test_looks_that_are_near_are_found_and_no_others():
    """Against all pairs one by one, at every distance around the limit."""
    random = np.random.default_rng(0)
    known = [int(value) for value in random.integers(0, 1 << 63, 300)]
    asked = []
    for place in range(200):
        bits = random.permutation(64)[: place % 10]
        asked.append(known[place] ^ sum(1 << int(bit) for bit in bits))
    found = pairs_alike([*known, None], [*asked, None])
    near = {
        place
        for place, look in enumerate(asked)
        if min((look ^ other).bit_count() for other in known) <= 6
    }
    assert found.keys() == near
    assert len(near) == 140
    assert all((asked[a] ^ known[k]).bit_count() <= 6 for a, k in found.items())


@pytest.mark.parametrize('same', [False, True], ids=['different', 'all the same'])
def test_tens_of_thousands_of_looks_take_seconds(same):
    random = np.random.default_rng(0)
    known, asked = (random.integers(0, 1 << 63, n).tolist() for n in (20_000, 5_000))
    if same:
        # All differ in one bit from all others, and so no two are equal.
        known = [0b111 ^ (1 << i % 3) for i in range(20_000)]
        asked = [0b11000] * 5_000
    found = pairs_alike(known, asked)
    assert len(found) == (5_000 if same else 0)


def test_a_picture_of_nothing_looks_like_no_other():
    pytest.importorskip('imagehash')
    blank = np.full((50, 70, 3), 200, dtype=np.uint8)
    assert look_of(blank) is None
    assert pairs_alike([None], [None]) == {}


def test_the_next_steps_start_from_weights(tmp_path, monkeypatch):
    write_voc(tmp_path / 'mine', scenes(4))
    report = prepare(DataOptions(tmp_path / 'mine', tmp_path / "it's out"))
    monkeypatch.setattr('sys.argv', ['/somewhere/bin/mmdet-backbones', 'data'])
    text = next_steps(report)
    lines = text.replace(' \\\n   ', '').splitlines()
    assert lines[1] == (
        'mmdet-backbones swap mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py '
        f"""{ADVERTISED} --data '{tmp_path}/it'"'"'s out' -o mine.py"""
    )
    assert lines[2] == 'mmdet-backbones train mine.py'
    assert lines[4] == 'mmdet-backbones test mine.py CHECKPOINT'
    written = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, written)) <= 80
