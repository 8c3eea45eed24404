"""Images are read as mmdet reads them, with OpenCV and without it."""

import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime.reading import read_image

MODES = {
    'RGB.png': 'RGB',
    'RGBA.png': 'RGBA',
    'grey.png': 'L',
    'bits.png': '1',
    'palette.png': 'P',
    'grey_alpha.png': 'LA',
    'colour.jpg': 'RGB',
    'grey.jpg': 'L',
    'colour.bmp': 'RGB',
    'colour.webp': 'RGB',
}


def picture(height: int = 40, width: int = 60) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 4, columns * 4, (rows + columns) * 2]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def write(path: Path, mode: str, **options: object) -> Path:
    picture().convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize('name', MODES)
def test_files_of_all_modes_are_read_as_mmcv_reads_them(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, MODES[name])
    wanted = mmcv.imread(path, channel_order='rgb').astype(int)
    assert np.array_equal(read_image(path), wanted)
    assert np.array_equal(read_image(str(path)), wanted)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    for found in (read_image(path), read_image(Image.open(path))):
        assert (found.shape, found.dtype) == (wanted.shape, np.uint8)
        # Decoders of JPEG and WebP round differently.
        assert np.abs(found - wanted).max() <= (4 if name[-3:] in 'jpgwebp' else 0)


@pytest.mark.parametrize('turn', range(1, 9))
def test_photographs_are_turned_as_their_exif_says(tmp_path, monkeypatch, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = write(tmp_path / 'turned.jpg', 'RGB', exif=exif, quality=100)
    wanted = mmcv.imread(path, channel_order='rgb').astype(int)
    assert np.array_equal(read_image(path), wanted)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    for found in (read_image(path), read_image(Image.open(path))):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 4


def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, monkeypatch):
    deep = np.arange(60000, dtype=np.uint16).reshape(200, 300)
    path = tmp_path / 'deep.png'
    Image.fromarray(deep).save(path)
    wanted = mmcv.imread(path, channel_order='rgb')
    assert np.array_equal(read_image(path), wanted)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    assert np.abs(read_image(path).astype(int) - wanted).max() <= 1


def test_what_opencv_cannot_read_pillow_does(tmp_path):
    path = write(tmp_path / 'old.pcx', 'RGB')
    assert np.array_equal(read_image(path), np.asarray(picture()))


def test_arrays_are_taken_as_they_are():
    image = np.asarray(picture())
    assert read_image(image) is image


@pytest.mark.parametrize(
    ('shape', 'line'),
    [
        ((5, 6), r'np\.stack\(\[image\] \* 3, axis=-1\)'),
        ((5, 6, 1), r'np\.repeat\(image, 3, axis=-1\)'),
        ((5, 6, 4), r'image\[\.\.\., :3\]'),
        ((3, 5, 6), r'image\.transpose\(1, 2, 0\)'),
        ((2, 5, 6, 3), r'predict\(list\(images\)\)'),
        ((0, 6, 3), 'at least one pixel'),
        ((7,), r'\(H, W, 3\), RGB, got \(7,\)'),
    ],
)
def test_arrays_of_other_shapes_are_refused_with_the_line_to_write(shape, line):
    with pytest.raises(ValueError, match=line):
        read_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'int64', 'bool', 'uint16'])
def test_arrays_of_other_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=f'got {dtype}: write'):
        read_image(np.zeros((4, 4, 3), dtype))


def test_the_lines_to_write_cure():
    grey = np.full((5, 6), 0.5)
    image = (255 * np.stack([grey] * 3, axis=-1)).round().astype(np.uint8)
    assert read_image(image).shape == (5, 6, 3)


@pytest.mark.parametrize('given', [None, 3, [1], b'x'])
def test_what_is_no_image_is_refused(given):
    with pytest.raises(TypeError, match='a path, a PIL image or an array'):
        read_image(given)


def test_files_that_cannot_be_read_are_named(tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'no picture')
    (tmp_path / 'empty.png').touch()
    for name in ('broken.jpg', 'empty.png', 'absent.png', ''):
        with pytest.raises(UserError, match=f"'{tmp_path / name}'"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match='does not begin as one of JPEG, PNG'):
        read_image(broken)


def test_values_without_a_common_meaning_are_refused(tmp_path):
    for mode in 'IF':
        with pytest.raises(UserError, match=f"mode '{mode}'"):
            read_image(Image.new(mode, (4, 4)))
    with pytest.raises(UserError, match='no pixels'):
        read_image(Image.new('RGB', (0, 4)))
