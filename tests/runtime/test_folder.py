"""What is wrong with an exported folder is told before anything of it is loaded."""

import json
import os

import pytest
from exported_folders import describe

from mmdet_backbones.errors import UserError
from mmdet_backbones.runtime.description import problems_in
from mmdet_backbones.runtime.folder import is_exported, read_folder

FILES = {'model.onnx': b'synthetic bytes'}


def write(folder, content=None, files=FILES):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    content = describe(files) if content is None else content
    (folder / 'detector.json').write_text(json.dumps(content))
    return folder


def told(folder):
    with pytest.raises(UserError) as error:
        read_folder(folder)
    return str(error.value)


def test_a_whole_folder_is_read(tmp_path):
    found = read_folder(write(tmp_path / 'there'))
    assert is_exported(found.path)
    assert found.format == 'onnx'
    assert found.classes == ('upright', 'wide')
    assert found.resize.scale == (64, 96)
    assert found.files == (tmp_path / 'there' / 'model.onnx',)


CHANGES = [
    ({'format': 'tflite'}, "format must be 'onnx' or 'openvino'"),
    ({'precision': 'fp8'}, "precision must be 'fp32'"),
    ({'classes': []}, 'classes must be a list of names, got []'),
    ({'classes': [1]}, 'classes must be'),
    ({'input': {'batch': 0}}, 'input.batch must be a whole number above 0, or null'),
    ({'input': {'height': 6.5}}, 'input.height must be'),
    ({'input': {'batch': True}}, 'input.batch must be'),
    ({'input': {'dtype': 'float32'}}, "input.dtype must be 'uint8'"),
    ({'input': {'hieght': 3}}, 'input.hieght is not known, nearest: height'),
    ({'resize': {'keep_ratio': 1}}, 'resize.keep_ratio must be true or false, got 1'),
    ({'resize': {'interpolation': 'best'}}, 'resize.interpolation must be'),
    ({'resize': {'size_divisor': 0}}, 'resize.size_divisor must be'),
    ({'thresholds': {'score': 1.5}}, 'thresholds.score must be a number from 0 to 1'),
    ({'normalisation': {'mean': [1, 2]}}, 'normalisation.mean must be'),
    ({'outputs': ['scores', 'boxes', 'labels']}, 'outputs must be'),
    ({'max_per_image': 0}, 'max_per_image must be'),
    ({'surprise': 1}, 'surprise is not known'),
    ({'format_version': 0}, 'format_version must be 1, got 0'),
    ({'format_version': True}, 'format_version must be 1, got True'),
    ({'format': 'openvino'}, 'files names no model.xml'),
    ({'files': {'model.onnx': {'bytes': 3}}}, 'files.model.onnx.sha256 is missing'),
    ({'files': {'model.onnx': 3}}, 'files.model.onnx must be an object'),
]


@pytest.mark.parametrize(('change', 'words'), CHANGES)
def test_each_wrong_value_is_told(tmp_path, change, words):
    content = describe(FILES)
    for key, value in change.items():
        inner = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = {**content[key], **value} if inner else value
    assert words in told(write(tmp_path / 'there', content))


@pytest.mark.parametrize('key', describe(FILES))
def test_each_missing_key_is_told(key):
    content = describe(FILES)
    del content[key]
    assert f'{key} is missing' in problems_in(content)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    content = describe(FILES, max_per_image=-1, extra=2, resize=dict(pad=None))
    del content['detector']
    message = told(write(tmp_path / 'there', content))
    for words in ('max_per_image', 'extra', 'resize.pad', 'detector is missing'):
        assert words in message


def test_a_later_version_is_told_alone(tmp_path):
    message = told(write(tmp_path / 'there', {'format_version': 2, 'new': 1}))
    assert 'format_version is 2' in message
    assert 'pip install --upgrade' in message
    assert 'missing' not in message


@pytest.mark.parametrize('text', ['', '{', '[' * 100000, '3', 'null', '[1]', '\x00'])
def test_a_damaged_description_is_told(tmp_path, text):
    folder = write(tmp_path / 'there')
    (folder / 'detector.json').write_text(text)
    message = told(folder)
    assert 'no JSON' in message or 'not an object' in message


def test_a_changed_file_is_told(tmp_path):
    folder = write(tmp_path / 'there')
    (folder / 'model.onnx').write_bytes(b'Synthetic bytes')
    assert 'model.onnx is not what was written: its SHA-256 is another' in told(folder)
    (folder / 'model.onnx').write_bytes(b'half')
    assert 'model.onnx has 4 bytes, 15 were written' in told(folder)
    (folder / 'model.onnx').unlink()
    assert 'model.onnx is not there' in told(folder)


@pytest.mark.parametrize(
    'name', ['../out.bin', '/etc/passwd', 'a/b', '..', '', 'a\\b', 'C:x', 'a\0b']
)
def test_files_elsewhere_are_refused(tmp_path, name):
    (tmp_path / 'out.bin').write_bytes(b'x')
    content = describe({**FILES, name: b'x'})
    assert 'is no plain file name' in told(write(tmp_path / 'there', content))


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = write(tmp_path / 'there')
    (folder / 'model.onnx').rename(tmp_path / 'outside.onnx')
    (folder / 'model.onnx').symlink_to(tmp_path / 'outside.onnx')
    assert 'model.onnx is a link, which leads out' in told(folder)
    (folder / 'detector.json').rename(tmp_path / 'outside.json')
    (folder / 'detector.json').symlink_to(tmp_path / 'outside.json')
    assert 'detector.json' in told(folder)


def test_a_link_to_the_whole_folder_is_a_folder(tmp_path):
    write(tmp_path / 'there')
    (tmp_path / 'link').symlink_to(tmp_path / 'there')
    assert read_folder(tmp_path / 'link').format == 'onnx'


def test_what_is_no_exported_folder_is_told(tmp_path):
    folder = write(tmp_path / 'there')
    (tmp_path / 'other').mkdir()
    assert 'there is no exported folder' in told(tmp_path / 'absent')
    assert 'name a folder with a detector.json' in told(tmp_path / 'other')
    assert f"name the folder, '{folder}'" in told(folder / 'model.onnx')
    os.mkfifo(tmp_path / 'other' / 'detector.json')
    assert 'is a pipe, not a file' in told(tmp_path / 'other')
    assert not is_exported(tmp_path / 'other')
