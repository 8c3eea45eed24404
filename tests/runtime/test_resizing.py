"""Images are resized to the size, and to the values, that mmdet gives them."""

import sys

import cv2
import mmcv
import numpy as np
import pytest

from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime.folder import ResizeRule
from mmdet_backbones.runtime.resizing import padded_size, resize, size_for


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)


def rule(scale, keep_ratio=True, pad=False, divisor=32, fixed=(None, None)):
    return ResizeRule(scale, keep_ratio, 'bilinear', pad, divisor, fixed)


def test_sizes_with_a_kept_ratio_are_those_of_mmcv():
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width, short, long = map(int, generator.integers(1, 2000, 4))
        wanted = mmcv.rescale_size((width, height), (long, short))
        found = size_for(rule((short, long)), height, width)
        assert found[::-1] == tuple(max(side, 1) for side in wanted)


def test_without_a_kept_ratio_every_image_gets_the_size_of_the_rule():
    assert size_for(rule((300, 400), keep_ratio=False), 10, 2000) == (300, 400)
    bounded = rule((300, 400), keep_ratio=False, fixed=(320, 416))
    assert size_for(bounded, 10, 2000) == (320, 416)


def test_an_upright_image_fits_into_a_graph_for_lying_ones():
    assert size_for(rule((800, 1333), fixed=(800, 1344)), 2000, 1000) == (800, 400)
    assert size_for(rule((800, 1333)), 2000, 1000) == (1333, 667)


@pytest.mark.parametrize(
    ('given', 'wanted'),
    [
        (rule((640, 640)), (480, 640)),
        (rule((640, 640), pad=True), (640, 640)),
        (rule((640, 640), divisor=1), (468, 640)),
        (rule((640, 640), fixed=(640, 672)), (640, 672)),
        (rule((640, 640), fixed=(None, 672)), (480, 672)),
        (rule((600, 600), pad=True, divisor=32), (608, 640)),
    ],
)
def test_what_the_graph_takes_is_padded(given, wanted):
    assert padded_size(given, 468, 640) == wanted


def test_without_opencv_no_value_is_more_than_one_away(without_opencv):
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width, *new = map(int, generator.integers(1, 300, 4))
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
        found = resize(image, *new)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_without_opencv_other_interpolations_are_refused(without_opencv):
    with pytest.raises(UserError, match='pip install opencv-python-headless'):
        resize(np.zeros((4, 4, 3), np.uint8), 8, 8, 'bicubic')


def test_without_opencv_and_pillow_one_of_them_is_asked_for(
    without_opencv, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'PIL', None)
    with pytest.raises(UserError, match='pip install pillow'):
        resize(np.zeros((4, 4, 3), np.uint8), 8, 8)


def test_with_opencv_images_are_those_of_mmcv():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    wanted = mmcv.imresize(image, (33, 41), interpolation='area')
    assert np.array_equal(resize(image, 41, 33, 'area'), wanted)
