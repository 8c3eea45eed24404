"""An exported net finds boxes in the pixels of the images that it was given."""

import sys

import numpy as np
import pytest
from exported_folders import draw, write_exported
from PIL import Image

from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime import load

WIDE, UPRIGHT = (16, 8, 56, 24), (4, 40, 12, 60)
IMAGE = draw(64, 96, WIDE, UPRIGHT)
TWICE = IMAGE.repeat(2, 0).repeat(2, 1)


@pytest.fixture
def folder(tmp_path):
    return write_exported(tmp_path / 'exported')


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)


def same(found, *boxes, within=1e-3):
    return np.allclose(found.boxes, np.array(boxes).reshape(-1, 4), atol=within)


def test_boxes_scores_and_labels_of_one_image(folder):
    (found,) = load(folder).predict([IMAGE])
    assert same(found, WIDE, UPRIGHT)
    assert np.allclose(found.scores, [200 / 255, 190 / 255], atol=1e-5)
    assert found.labels.tolist() == [1, 0]
    assert found.names == ('upright', 'wide')
    kinds = (found.boxes.dtype, found.scores.dtype, found.labels.dtype)
    assert kinds == (np.float32, np.float32, np.int64)


def test_boxes_are_in_pixels_of_the_image_as_it_was_given(folder):
    shapes = [IMAGE, TWICE, TWICE.repeat(3, 0).repeat(3, 1)]
    for factor, found in zip((1, 2, 6), load(folder).predict(shapes), strict=True):
        assert same(found, np.multiply(WIDE, factor), np.multiply(UPRIGHT, factor))


def test_smaller_images_are_enlarged(folder):
    (found,) = load(folder).predict([draw(32, 48, (8, 4, 24, 12))])
    assert same(found, (8, 4, 24, 12), within=2)


def test_boxes_end_where_the_image_does(folder):
    (found,) = load(folder).predict([draw(51, 96, (80, 40, 96, 51))])
    assert same(found, (80, 40, 96, 51))


def test_sides_scaled_by_different_factors(tmp_path):
    folder = write_exported(tmp_path / 'f', resize=dict(keep_ratio=False))
    (found,) = load(folder).predict([TWICE[:, ::2]])
    assert same(found, (16, 16, 56, 48), (4, 80, 12, 120))


@pytest.mark.parametrize('count', [0, 1, 2, 3, 5, 17])
@pytest.mark.parametrize('batch', [None, 1, 2])
def test_any_number_of_images_goes_through_any_batch(tmp_path, count, batch):
    size = dict(height=64, width=96) if batch else {}
    folder = write_exported(tmp_path / 'f', input=dict(batch=batch, **size))
    images = [(IMAGE, TWICE)[place % 2] for place in range(count)]
    found = load(folder).predict(iter(images))
    assert len(found) == count
    for place, one in enumerate(found):
        factor = 1 + place % 2
        assert same(one, np.multiply(WIDE, factor), np.multiply(UPRIGHT, factor))


def test_other_images_of_a_batch_change_nothing(folder):
    detector = load(folder)
    images = [IMAGE, TWICE[:70], draw(90, 40, UPRIGHT), draw(64, 96), IMAGE[:, :50]]
    together = detector.predict(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.predict([image])
        assert np.array_equal(alone.boxes, found.boxes)
        assert np.array_equal(alone.scores, found.scores)


def test_an_image_of_another_form_fits_into_a_fixed_graph(tmp_path):
    fixed = dict(batch=1, height=64, width=96)
    detector = load(write_exported(tmp_path / 'f', input=fixed))
    upright = draw(192, 64, (12, 24, 24, 96))
    (found,) = detector.predict([upright])
    assert same(found, (12, 24, 24, 96), within=12)


def test_only_scores_from_the_threshold_on(folder):
    detector = load(folder)
    counts = [
        len(detector.predict([IMAGE], threshold)[0].scores)
        for threshold in (None, 0, 0.76, np.float32(0.9), 1)
    ]
    assert counts == [2, 2, 1, 0, 0]


def test_nothing_is_found_in_an_empty_image(folder):
    (found,) = load(folder).predict([draw(64, 96)])
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_paths_and_pil_images(folder, tmp_path):
    Image.fromarray(TWICE).save(tmp_path / 'image.png')
    pil = Image.fromarray(TWICE)
    path = tmp_path / 'image.png'
    given = [path, str(path), pil, pil.convert('RGBA')]
    for found in load(folder).predict(given):
        assert same(found, np.multiply(WIDE, 2), np.multiply(UPRIGHT, 2))


@pytest.mark.parametrize('given', [IMAGE, 'image.png'])
def test_one_image_alone_is_refused(folder, given):
    with pytest.raises(TypeError, match=r'write predict\(\[image\]\)'):
        load(folder).predict(given)


@pytest.mark.parametrize('threshold', [-0.1, 1.5, float('nan'), '0.5'])
def test_a_threshold_is_a_score(folder, threshold):
    with pytest.raises(ValueError, match='threshold must be from 0 to 1'):
        load(folder).predict([IMAGE], threshold)


def test_every_image_that_cannot_be_used_is_told(folder):
    with pytest.raises(ValueError, match='absent') as error:
        load(folder).predict([IMAGE, 'absent.png', IMAGE[..., 0], IMAGE])
    assert 'images[1]: ' in str(error.value)
    assert 'images[2]: ' in str(error.value)
    with pytest.raises(TypeError, match=r'images\[9\]: .* float64'):
        load(folder).predict([IMAGE] * 9 + [IMAGE / 255])


@pytest.mark.parametrize('threads', [0, -1, 1.5, True, '2'])
def test_threads_are_a_number(folder, threads):
    with pytest.raises(ValueError, match='threads must be a whole number above 0'):
        load(folder, threads)


def test_more_labels_than_names_are_told(tmp_path):
    folder = write_exported(tmp_path / 'f', classes=['upright'])
    with pytest.raises(UserError, match='names 1 classes, its net found one of numb'):
        load(folder).predict([IMAGE])


def test_a_net_that_does_not_take_what_the_description_allows_is_told(tmp_path):
    fixed = dict(batch=2, height=64, width=96)
    folder = write_exported(tmp_path / 'f', input=fixed)
    text = (folder / 'detector.json').read_text()
    text = text.replace('"batch": 2', '"batch": null')
    (folder / 'detector.json').write_text(text)
    with pytest.raises(UserError, match='does not take 1 images of 64 x 96 pixels'):
        load(folder).predict([IMAGE])


def test_boxes_without_opencv_are_the_same(folder, without_opencv, tmp_path):
    Image.fromarray(TWICE).save(tmp_path / 'image.png')
    (found,) = load(folder).predict([tmp_path / 'image.png'])
    assert same(found, np.multiply(WIDE, 2), np.multiply(UPRIGHT, 2))
    assert sys.modules['cv2'] is None
