"""What counts as the same box, and as a tie."""

import numpy as np
import pytest

from mmdet_backbones.deploy.equality import Bounds, compare
from mmdet_backbones.runtime.detections import Detections


def found(*rows) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    labels = np.zeros(len(table), np.int64)
    return Detections(table[:, :4], table[:, 4], labels, ('tree',))


ONE = (10, 10, 50, 50, 0.9)
TWO = (60, 10, 90, 50, 0.6)


def test_the_same_boxes_are_equal():
    comparison = compare([found(ONE, TWO)], [found(ONE, TWO)], 0.05)
    assert comparison.equal
    assert (comparison.boxes, comparison.ties) == (2, 0)
    assert comparison.least_iou == pytest.approx(1)


@pytest.mark.parametrize(
    ('other', 'missing', 'extra'),
    [
        ([ONE], 1, 0),
        ([ONE, TWO, (100, 100, 140, 140, 0.3)], 0, 1),
        ([ONE, (61, 10, 90, 50, 0.6)], 1, 1),
        ([ONE, (60, 10, 90, 50, 0.6005)], 1, 1),
    ],
    ids=['missing', 'extra', 'moved by a pixel', 'another score'],
)
def test_a_difference_is_one(other, missing, extra):
    comparison = compare([found(ONE, TWO)], [found(*other)], 0.05)
    assert not comparison.equal
    assert (comparison.missing, comparison.extra) == (missing, extra)


def test_ties_are_counted_and_no_difference():
    border = (60, 10, 90, 50, 0.05005)
    at_threshold = compare([found(ONE, border)], [found(ONE)], 0.05)
    assert at_threshold.equal
    assert at_threshold.ties == 1
    # IoU 0.5 with the better one.
    near = (10, 10, 50, 30, 0.7)
    suppressed = compare([found(ONE, near)], [found(ONE)], 0.05, Bounds(nms_iou=0.5))
    assert suppressed.equal
    assert suppressed.ties == 1
    apart = compare([found(ONE, near)], [found(ONE)], 0.05, Bounds(nms_iou=0.6))
    assert not apart.equal


def test_of_an_image_the_best_count():
    many = [found(ONE, TWO, (100, 10, 140, 50, 0.4))]
    few = [found(ONE, TWO)]
    assert compare(many, few, 0.05, Bounds(count=2)).equal
    assert not compare(many, few, 0.05).equal
