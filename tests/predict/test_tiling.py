"""Photographs in tiles: every object once, wherever the tiles cut it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_backbones.predict.tiling import Tiling, merge
from mmdet_backbones.runtime.detections import Detections

NAMES = ('tree', 'shrub')


def found(boxes, scores=None, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return Detections(
        boxes,
        np.array([0.9] * count if scores is None else scores, np.float32),
        np.array([0] * count if labels is None else labels, np.int64),
        NAMES,
    )


def seen(window, boxes, labels, random, noise=0.7):
    """What a good detector finds in a tile: what is in it, cut off where it ends."""
    x0, y0, x1, y1 = window
    parts, kinds = [], []
    for box, label in zip(boxes, labels, strict=True):
        clipped = np.clip(box, [x0, y0, x0, y0], [x1, y1, x1, y1])
        size, whole = clipped[2:] - clipped[:2], box[2:] - box[:2]
        # Of a sliver nobody can tell what it is.
        if size.prod() >= 0.25 * whole.prod() and size.min() >= 4:
            moved = clipped + random.normal(0, noise, 4)
            moved = np.clip(moved, [x0, y0, x0, y0], [x1, y1, x1, y1])
            parts.append(moved - [x0, y0, x0, y0])
            kinds.append(label)
    scores = random.random(len(parts)) / 2 + 0.5
    order = np.argsort(-scores)
    parts = np.array(parts).reshape(-1, 4)
    return found(parts[order], scores[order], np.array(kinds, int)[order])


def scene(random, count, size, largest):
    """Objects that do not touch each other."""
    boxes = []
    for _ in range(count * 20):
        side = random.integers(20, largest, 2)
        corner = [random.integers(0, s - a) for s, a in zip(size, side, strict=True)]
        box = np.array([*corner, *(corner + side)], float)
        apart = [
            box[0] > b[2] + 5 or b[0] > box[2] + 5 or box[1] > b[3] + 5
            or b[1] > box[3] + 5 for b in boxes
        ]  # fmt: skip
        if all(apart):
            boxes.append(box)
        if len(boxes) == count:
            break
    return np.array(boxes), random.integers(0, 2, len(boxes))


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.3, 0.5]), st.booleans())
def test_every_object_is_found_once(seed, overlap, large):
    random = np.random.default_rng(seed)
    size = tuple(int(side) for side in random.integers(400, 900, 2))
    boxes, labels = scene(random, 15, size, 150 if large else 60)
    windows = Tiling(200, overlap).windows(size)
    whole = merge(windows, [seen(w, boxes, labels, random) for w in windows])
    assert len(whole.scores) == len(boxes)
    assert (np.diff(whole.scores) <= 0).all()
    for box, label in zip(boxes, labels, strict=True):
        near = np.abs(whole.boxes - box).max(1).argmin()
        assert np.abs(whole.boxes[near] - box).max() < 5
        assert whole.labels[near] == label


def test_an_object_larger_than_a_tile_is_put_together():
    windows = Tiling(100, 0.3).windows((380, 100))
    assert len(windows) > 3
    box = np.array([20.0, 30, 350, 60])
    random = np.random.default_rng(0)
    parts = []
    for window in windows:
        x0, y0, x1, y1 = window
        cut = np.clip(box, [x0, y0, x0, y0], [x1, y1, x1, y1]) - [x0, y0, x0, y0]
        parts.append(found([cut], [random.random()]))
    whole = merge(windows, parts)
    assert whole.boxes.tolist() == [[20, 30, 350, 60]]


def test_a_small_object_inside_a_large_one_stays():
    windows = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])
    large, small = [70, 10, 100, 90], [6, 40, 14, 50]
    whole = merge(windows, [found([large]), found([[0, 10, 40, 90], small])])
    assert len(whole.scores) == 2
    assert sorted(map(tuple, whole.boxes.tolist())) == [
        (70, 10, 120, 90), (86, 40, 94, 50)
    ]  # fmt: skip


def test_classes_are_apart_and_boxes_of_one_tile_stay():
    windows = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])
    box = [82, 20, 98, 60]
    mine = found([box, box], [0.9, 0.8])
    theirs = found([[2, 20, 18, 60]], [0.7], [1])
    assert merge(windows, [mine, theirs]).labels.tolist() == [0, 0, 1]


def test_nothing_found_is_nothing():
    windows = Tiling(100).windows((300, 200))
    whole = merge(windows, [found([])] * len(windows))
    assert whole.boxes.shape == (0, 4)
    assert whole.names == NAMES


def test_tiles_cover_the_image_and_share_their_edges():
    windows = Tiling(200, 0.25).windows((1000, 610))
    covered = np.zeros((610, 1000), int)
    for x0, y0, x1, y1 in windows:
        covered[y0:y1, x0:x1] += 1
        assert 130 < min(x1 - x0, y1 - y0) <= max(x1 - x0, y1 - y0) < 300
    assert covered.min() == 1
    assert covered.max() == 4
    assert len(Tiling(200).windows((200, 150))) == 1


def test_numbers_out_of_range_are_told():
    assert len(Tiling(8, 0.8).problems()) == 2
    assert Tiling(32, 0).problems() == []


def test_a_real_detector_is_asked_tile_by_tile(detector, images):
    image = np.tile(detector.read(images[0]), (2, 3, 1))
    tiling = Tiling(160, 0.2)
    whole = tiling.predict(image, lambda tiles: detector.predict(tiles, 0.5))
    height, width = image.shape[:2]
    assert len(whole.scores) > 20
    assert (whole.boxes >= 0).all()
    assert (whole.boxes <= [width, height] * 2).all()
    assert (whole.boxes[:, 2] > 200).any()
    (small,) = detector.predict(image[:128, :160], 0.5)
    alone = tiling.predict(image[:128, :160], lambda t: detector.predict(t, 0.5))
    assert (alone.boxes == small.boxes).all()
