"""What the words of a command line mean: images, folders, patterns, videos, cameras."""

import os

import pytest
from finders import photographs

from mmdet_backbones.errors import UserError
from mmdet_backbones.predict.sources import find_sources


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / 'a' / 'deep')
    photographs(tmp_path / 'b', 1)
    (tmp_path / 'a' / '.hidden.png').write_bytes(b'')
    (tmp_path / 'a' / 'notes.txt').write_text('no image')
    (tmp_path / 'clip.MP4').write_bytes(b'')
    return tmp_path


def names(*words):
    found = find_sources(words)
    return [found.name(image) for image in found.images]


def test_names_are_below_the_folder_of_all(photos):
    assert names('a') == ['deep/0.png', 'deep/1.png', 'deep/2.png']
    assert names('a/deep/1.png') == ['1.png']
    assert names('b', 'a')[:2] == ['b/0.png', 'a/deep/0.png']
    assert names('a/deep/[12].png') == ['1.png', '2.png']
    assert names('**/0.png') == ['a/deep/0.png', 'b/0.png']
    assert names('a/../b', 'a/deep/../deep/1.png') == ['b/0.png', 'a/deep/1.png']


def test_images_of_one_path_are_one(photos):
    assert names('b', 'b/0.png', 'b/*', 'a/../b', str(photos / 'b')) == ['0.png']


def test_a_name_with_the_signs_of_a_pattern_is_a_name(photos):
    os.rename('b/0.png', 'b/[0].png')
    assert names('b/[0].png') == ['[0].png']


def test_videos_cameras_and_streams_are_films(photos):
    found = find_sources(['clip.MP4', '0', 'rtsp://me:secret@10.0.0.1/live', '*.MP4'])
    assert [film.name for film in found.films] == [
        'clip.MP4', 'camera 0', 'rtsp://***@10.0.0.1/live'
    ]  # fmt: skip
    assert [film.live for film in found.films] == [False, True, True]
    assert [film.stem for film in found.films] == ['clip', 'camera_0', 'stream']
    assert found.images == ()
    (photos / '0').write_bytes(b'')
    assert names('0') == ['0']


def test_all_that_means_nothing_is_told_at_once(photos):
    (photos / 'empty').mkdir()
    (photos / 'films').mkdir()
    (photos / 'films' / 'x.mp4').write_bytes(b'')
    os.mkfifo(photos / 'pipe.jpg')
    words = ['empty', 'films', 'clip.MP5', 'no/such.png', '*.jpeg', 'ftp://a', '',
             'pipe.jpg', '*.txt', 'x\0y']  # fmt: skip
    with pytest.raises(UserError) as raised:
        find_sources([*words, 'b'])
    lines = str(raised.value).splitlines()
    assert len(lines) == len(words)
    for line, what in zip(
        lines,
        (
            "the folder 'empty' holds no image (.jpg, .jpeg, .png, .bmp, .tif, .tiff,",
            "it holds 1 other files, 1 of them videos: name these, 'films/*'",
            "no image, video or folder 'clip.MP5'; nearest: clip.MP4",
            "there is no folder 'no'",
            "the pattern '*.jpeg' matches no image or video: nothing",
            'a stream begins with rtsp://',
            'is empty',
            'is a pipe',
            'matches no image or video: nothing',
            'no path',
        ),
        strict=True,
    ):
        assert what in line
