"""Files are written whole, through no link, and over nothing unasked."""

import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from mmdet_backbones.catalog.conversion import write_weights
from mmdet_backbones.check.findings import Finding
from mmdet_backbones.errors import (
    ArgumentError,
    PretrainedWeightsError,
    UserError,
    printable,
    run,
)
from mmdet_backbones.files import (
    already_there,
    not_there,
    target_problem,
    what_is,
    whole_file,
    write_atomically,
)
from mmdet_backbones.weights import CheckpointError, read_checkpoint


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


def fifo(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


def unix_socket(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def dangling(path):
    path.symlink_to('nowhere')


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (fifo, 'is a pipe'),
        (loop, 'is a loop of links'),
        (unix_socket, 'is a socket'),
        (dangling, 'is a link to nothing'),
        (os.mkdir, 'is a directory'),
    ],
)
def test_what_is_no_file(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)
    make(Path('net.pth'))
    assert words in not_there('net.pth', 'checkpoint')
    assert words in str(refusal_of('net.pth'))
    problem = target_problem(Path('net.pth'), ('.pth',), force=True)
    if make is not dangling:
        assert problem is not None


def refusal_of(source):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(source)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000
    return error.value


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('', 'is empty'),
        ('/dev/zero', 'is a device'),
        ('/dev/null', 'is a device'),
        ('x' * 5000, 'too long for a path: 5000'),
        ('x/' * 3000, 'too long for a path'),
        ('x' * 300, 'too long for a path: 300'),
        ('a\0b', 'a character that no name has'),
        ('~nobody-of-this-name/net.pth', 'not there'),
        ('a\x1b[31m\nb', 'not there'),
        ('/proc/self/fd/99999/x', 'not there'),
    ],
)
def test_paths_that_lead_to_no_file(path, words):
    assert words in str(refusal_of(path))
    told = not_there(path, 'image')
    assert words in told or told.startswith('there is no image')
    assert len(told) < 500
    assert target_problem(Path(path), ('.pt',), force=False) is not None


@pytest.mark.parametrize('text', ['a\x1b[2Jb', 'a\nb', 'a\u202eb', 'a\ud800b'])
def test_what_a_terminal_would_obey_is_replaced(text):
    assert printable(text) == 'a\ufffdb' or '\x1b' in text
    assert printable(text).isprintable()
    assert len(printable(text * 1000)) == 120


def test_a_path_out_of_reach(monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(os, 'stat', refuse)
    assert what_is('net.pth') == 'out of reach: Permission denied'


def on_a_full_disk(step):
    """Run a step in a process that may not write files of more than 4 kB."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        sys.stderr = os.fdopen(writer, 'w')
        try:
            status = run(step)
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    with open(reader) as file:
        told = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def save_torch(path):
    write_weights(path, {'a': torch.rand(100_000)}, {'net': 'x'})


@pytest.mark.parametrize(
    'write', [lambda path: write_atomically(path, bytes(1 << 20)), save_torch]
)
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_a_full_disk_is_one_message_and_leaves_the_old_file(tmp_path, write, ending):
    path = tmp_path / f'net{ending}'
    path.write_text('old')
    status, told = on_a_full_disk(lambda: write(path))
    assert status == 1, told
    assert told.count('\n') == 1
    assert told.startswith(f"error: '{path}' cannot be written: ")
    assert 'make room' in told
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_system_are_one_message_too(tmp_path):
    def write():
        (tmp_path / 'file').write_bytes(bytes(1 << 20))

    status, told = on_a_full_disk(write)
    assert (status, told.count('\n')) == (1, 1)
    assert told.startswith('error: ')


def test_an_output_that_is_full(tmp_path):
    code = (
        'import sys; from mmdet_backbones.errors import run; '
        'sys.exit(run(lambda: print("x" * 100000)))'
    )
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [sys.executable, '-c', code], stdout=full, stderr=-1, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == 'error: No space left on device\n'


@pytest.mark.parametrize(
    'error', [UserError, CheckpointError, PretrainedWeightsError, ArgumentError]
)
def test_messages_are_fit_for_a_terminal(error):
    text = 'a\x1b[2J\rb\u202ec\x07\x9b31m\udcff\nsecond line'
    told = str(error(text))
    lines = told.split('\n')
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 2
    told.encode()
    assert len(str(error('x' * 100_000))) <= 2000
    assert (
        str(error("'https://me:secret@host/net.pth'")) == "'https://***@host/net.pth'"
    )
    assert (
        str(error('write a@b: see http://host/a@b')) == 'write a@b: see http://host/a@b'
    )


def test_findings_are_fit_for_a_terminal():
    finding = Finding('weights', 'load_from', 'it holds \x1b[31ma\u202e', ())
    assert all(line.isprintable() for line in str(finding).splitlines())
    assert finding.to_dict()['problem'].isprintable()
