"""Files are written whole, through no link, and over nothing unasked."""

import os

import pytest

from mmdet_backbones.files import (
    already_there,
    target_problem,
    whole_file,
    write_atomically,
)


@pytest.mark.parametrize(
    ('content', 'wanted'), [(b'\x00\xff', b'\x00\xff'), ('Wäldchen\n', None)]
)
def test_text_and_bytes_arrive_in_a_new_folder(tmp_path, content, wanted):
    path = tmp_path / 'new' / 'file'
    write_atomically(path, content)
    assert path.read_bytes() == (wanted or content.encode('utf-8'))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_permissions_are_those_of_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / 'file', 'new')
    finally:
        os.umask(before)
    assert (tmp_path / 'file').stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize('mistake', [KeyboardInterrupt, OSError, ValueError])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, mistake):
    path = tmp_path / 'file'
    path.write_text('old')

    def fill():
        with whole_file(path) as partial:
            partial.write_text('ne')
            raise mistake

    with pytest.raises(mistake):
        fill()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_written_through(tmp_path):
    other = tmp_path / 'other'
    other.write_text('of somebody else')
    path = tmp_path / 'file'
    path.symlink_to(other)
    (tmp_path / f'.file.{os.getpid()}.partial').symlink_to(other)
    write_atomically(path, 'new')
    assert other.read_text() == 'of somebody else'
    assert path.read_text() == 'new'
    assert not path.is_symlink()
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_what_is_there_is_told_with_what_to_write(tmp_path):
    one, link = tmp_path / 'one', tmp_path / 'link'
    assert already_there([one, link], force=False) is None
    one.touch()
    told = f"'{one}' is there already: write --force, or another --plot"
    assert already_there([one, link], False, '--plot') == told
    # A link that leads nowhere would be replaced too.
    link.symlink_to(tmp_path / 'nowhere')
    told = f"'{one}', '{link}' are there already: write --force, or another -o"
    assert already_there([one, link], force=False) == told
    assert already_there([one, link], force=True) is None


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('net', "-o must end in .pth or .onnx, got '{}/net': write -o {}/net.pth"),
        ('n.py', "-o must end in .pth or .onnx, got '{}/n.py': write -o {}/n.pth"),
        ('folder.pth', "-o names the folder '{}/folder.pth': name a file in it"),
        ('file/net.pth', "-o '{}/file/net.pth': '{}/file' is a file"),
        ('file/new/net.pth', "-o '{}/file/new/net.pth': '{}/file' is a file"),
        ('here.onnx', "'{}/here.onnx' is there already: write --force, or another -o"),
    ],
)
def test_a_target_that_cannot_be_written(tmp_path, name, told):
    (tmp_path / 'folder.pth').mkdir()
    (tmp_path / 'file').touch()
    (tmp_path / 'here.onnx').touch()
    problem = target_problem(tmp_path / name, ('.pth', '.onnx'), force=False)
    assert problem == told.replace('{}', str(tmp_path))


def test_a_target_that_can_be_written(tmp_path):
    (tmp_path / 'here.pth').touch()
    assert target_problem(tmp_path / 'here.pth', ('.pth',), force=True) is None
    path = tmp_path / 'new' / 'net.pth'
    assert target_problem(path, ('.pth',), force=False) is None
    told = f"-o: there is no folder '{tmp_path}/new': make it first"
    assert target_problem(path, ('.pth',), False, new_folder=False) == told
