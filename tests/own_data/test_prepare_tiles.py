"""Large photographs are cut into tiles; synthetic images."""

import json
import re

import numpy as np
import pytest
from own_folders import draw, read_back, snapshot, voc_xml, write_labelme, write_voc
from PIL import Image

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.prepare import DataOptions, prepare

LARGE = ((310, 200), [
    ('tree', 10, 20, 40, 60),
    ('shrub', 95, 90, 125, 130),   # its centre lies in the second column and row
    ('tree', 280, 150, 310, 200),
])  # fmt: skip
SMALL = ((90, 80), [('tree', 10, 10, 30, 40)])


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'mine'
    made = {f'large_{i}.png': LARGE for i in range(3)} | {'small.png': SMALL}
    write_voc(root, made)
    return root


def place(name):
    """Where a tile lies in its photograph, from its name."""
    found = re.fullmatch(r'(.*)_x(\d{5})_y(\d{5})\.png', name)
    return (name, 0, 0) if found is None else (found[1], int(found[2]), int(found[3]))


def test_tiles_cover_the_photograph_and_every_box_lies_in_one(tmp_path, folder):
    before = snapshot(folder)
    report = prepare(DataOptions(folder, tmp_path / 'out', tile=100))
    assert snapshot(folder) == before
    found, splits = read_back(tmp_path / 'out')
    assert len(found) == 3 * 6 + 1
    boxes = {}
    for name, inside in found.items():
        photograph, left, top = place(name)
        whole = np.asarray(Image.open(folder / 'JPEGImages' / photograph))
        tile = np.asarray(Image.open(tmp_path / 'out' / splits[name] / name))
        height, width = tile.shape[:2]
        assert np.array_equal(tile, whole[top : top + height, left : left + width])
        for label, x0, y0, x1, y1 in inside:
            corners = (x0 + left, y0 + top, x1 + left, y1 + top)
            boxes.setdefault(photograph, []).append((label, *corners))
    # The shrub is clipped to the tile of its centre; columns meet at 103 and 207.
    wanted = [LARGE[1][0], ('shrub', 103, 100, 125, 130), LARGE[1][2]]
    for name in ('large_0.png', 'large_1.png', 'large_2.png'):
        assert sorted(boxes[name]) == sorted(wanted)
    assert boxes['small.png'] == SMALL[1]
    told = [f for f in report.findings if 'larger than tiles of 100' in f.problem]
    assert all(f.problem.endswith(': 3 x 2 of them') for f in told)
    assert [f.done for f in told] == ['cut into tiles'] * 3
    # What it says of the images is said of the tiles.
    sides = report.to_dict()['splits']
    assert sum(side['images'] for side in sides.values()) == 19


def test_tiles_of_a_photograph_stay_on_one_side(tmp_path, folder):
    prepare(DataOptions(folder, tmp_path / 'out', val_share=0.5, tile=50))
    _, splits = read_back(tmp_path / 'out')
    sides = {}
    for name, split in splits.items():
        sides.setdefault(place(name)[0], set()).add(split)
    assert all(len(used) == 1 for used in sides.values())
    assert set.union(*sides.values()) == {'train', 'val'}


def test_a_turned_picture_is_cut_as_mmdet_sees_it(tmp_path):
    root = tmp_path / 'mine'
    for name in ('turned.jpg', 'other.jpg'):
        draw(root / name, (200, 100), [('tree', 20, 30, 60, 80)])
        xml = voc_xml(name, (100, 200), [('tree', 20, 30, 60, 80)])
        (root / name).with_suffix('.xml').write_text(xml)
        picture = Image.open(root / name)
        tags = Image.Exif()
        tags[0x0112] = 6
        picture.save(root / name, exif=tags, quality=95)
    prepare(DataOptions(root, tmp_path / 'out', val_share=0.5, tile=100))
    found, _ = read_back(tmp_path / 'out')
    assert sorted(found) == [
        f'{name}.jpg_x00000_y{top:05d}.png'
        for name in ('other', 'turned')
        for top in (0, 100)
    ]
    assert found['turned.jpg_x00000_y00000.png'] == [('tree', 20, 30, 60, 80)]


def test_outlines_are_left_out_and_told(tmp_path):
    root = tmp_path / 'mine'
    write_labelme(root, {f'{i}.png': LARGE for i in range(2)})
    for path in root.rglob('*.json'):
        content = json.loads(path.read_text())
        for shape in content['shapes']:
            (x0, y0), (x1, y1) = shape['points'][0], shape['points'][-1]
            shape['shape_type'] = 'polygon'
            shape['points'] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        path.write_text(json.dumps(content))
    assert prepare(DataOptions(root, tmp_path / 'whole')).masks
    report = prepare(DataOptions(root, tmp_path / 'out', tile=100))
    assert not report.masks
    assert any('outlines cannot be cut' in f.problem for f in report.findings)
    text = (tmp_path / 'out' / 'annotations' / 'train.json').read_text()
    assert 'segmentation' not in text


def test_a_side_that_is_too_small_is_refused(tmp_path, folder):
    with pytest.raises(UserError, match='--tile is 32 pixels or more, got 31'):
        prepare(DataOptions(folder, tmp_path / 'out', tile=31))
    assert not (tmp_path / 'out').exists()
