"""Files that would take more than they are: refused at once, and in little memory."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from hostile_files import FILES, archive, name, text, under_a
from reading_worker import MEMORY, ReadingWorker

from mmdet_backbones.weights import CheckpointError, read_checkpoint
from mmdet_backbones.weights.reading.reader import open_checkpoint, read_shapes

# Names and shapes alone are small, whatever they claim.
ONLY_SHAPES = {
    'many views of one number', 'a huge view of one number', 'a hole of 1 TB',
    'a hole of 4 GB',
}  # fmt: skip
SECONDS = 5


@pytest.fixture(scope='module')
def worker():
    worker = ReadingWorker()
    yield worker
    worker.stop()


@pytest.mark.parametrize('kind', FILES)
def test_bombs(tmp_path, worker, kind):
    path = tmp_path / 'net.pth'
    FILES[kind](path)
    for how in ('read', 'shapes', 'saved'):
        found = worker.read(path, how)
        # What keeps all as it was saved, or its shapes alone, need not refuse it.
        if how == 'read' or (how == 'shapes' and kind not in ONLY_SHAPES):
            assert found.kind == 'refused', (how, found)
            assert 'more memory than there is' not in found.message, found
        assert found.kind in ('read', 'refused'), (how, found)
        assert found.seconds < SECONDS, (how, found)
        assert found.memory < MEMORY // 4, (how, found)
        assert len(found.message) < 1000, found
        assert found.message.isprintable(), found


def test_what_training_scripts_save_is_no_bomb(tmp_path):
    """Shared lists, tied weights, sets, counters, tuples as keys, bytes."""
    tied = torch.nn.Parameter(torch.ones(3))
    rates = [0.1] * 50
    content = {
        'state_dict': {'a': tied, 'b': tied, 'c': torch.arange(6).view(2, 3).t()},
        'meta': {
            'rates': [rates, rates], 'seen': {1, 2.5, 'x'}, 'size': torch.Size([2, 3]),
            'table': {(0, 1): 'a', (1, (2, 3)): 'b'}, 'bytes': bytearray(b'abc'),
            'device': torch.device('cpu'), 'large': 1 << 100, 'complex': 1j,
        },
    }  # fmt: skip
    for new in (True, False):
        path = tmp_path / 'net.pth'
        torch.save(content, path, _use_new_zipfile_serialization=new)
        found = read_checkpoint(str(path))
        assert torch.equal(found.state_dict['c'], torch.arange(6).view(2, 3).t())
        assert found.metadata['table'] == content['meta']['table']
        assert found.metadata['rates'] == [rates, rates]
        assert found.metadata['bytes'] == b'abc'


class Settings:
    """Of a training script of the user's own."""

    def __init__(self) -> None:
        self.rate = 0.1


def test_classes_that_the_user_declares_safe_are_read(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save({'a': torch.ones(2), 'meta': {'settings': Settings()}}, path)
    with pytest.raises(CheckpointError, match=r'names .*Settings'):
        read_checkpoint(str(path))
    with torch.serialization.safe_globals([Settings]):
        assert read_checkpoint(str(path)).metadata['settings'].rate == 0.1


@pytest.mark.parametrize(
    'call', [('torch', 'ones'), ('os', 'system'), ('builtins', 'eval')]
)
def test_a_function_that_is_no_part_of_weights_is_named(tmp_path, call):
    path = tmp_path / 'net.pth'
    archive(path, under_a(name(*call) + text('1') + b'\x85R'))
    with pytest.raises(CheckpointError, match=f'it names {".".join(call)}'):
        read_checkpoint(str(path))


@pytest.mark.parametrize('kind', ['zip', 'old', 'safetensors'])
@pytest.mark.skipif(not hasattr(os, 'memfd_create'), reason='no files in memory here')
def test_a_file_that_shrinks_while_its_weights_are_in_use(tmp_path, kind):
    """In a process of its own, as it would end by SIGBUS."""
    path = tmp_path / 'net'
    weights = {'a': torch.rand(100_000)}
    if kind == 'safetensors':
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == 'zip')
    child = os.fork()
    if child == 0:
        found = read_checkpoint(str(path)).state_dict
        os.truncate(path, 100)
        os._exit(0 if torch.equal(found['a'], weights['a']) else 1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(CheckpointError):
        read_checkpoint(str(path))


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux lets writers wait')
@pytest.mark.parametrize('written_to', [False, True])
def test_nobody_changes_a_file_while_it_is_loaded(tmp_path, written_to):
    """Who opens it later waits; of one that is open for writing a copy is loaded."""
    path = tmp_path / 'net.pth'
    weights = {'a': torch.rand(100_000)}
    torch.save(weights, path)
    with path.open('r+b') if written_to else nullcontext():
        with open_checkpoint(str(path)) as found:
            # A fork would hold the file open, and wait for itself.
            cut = f'import os; os.truncate({str(path)!r}, 100)'
            child = subprocess.Popen([sys.executable, '-S', '-c', cut])
            time.sleep(0.5)
            assert (path.stat().st_size == 100) == written_to
            assert torch.equal(found.state_dict['a'], weights['a'])
        assert child.wait(10) == 0
    assert path.stat().st_size == 100


@pytest.mark.parametrize('bad', ['a\x1b[2Jb', 'a\nb', 'a\rb', 'a\u202eb', 'x' * 5000])
@pytest.mark.parametrize('kind', ['zip', 'safetensors'])
def test_names_that_a_terminal_would_obey(tmp_path, bad, kind):
    path = tmp_path / 'net.pth'
    weights = {bad: torch.ones(3), 'b': torch.ones(2)}
    if kind == 'zip':
        torch.save(weights, path)
    else:
        from safetensors.torch import save_file

        save_file(weights, path)
    for read in (read_checkpoint, read_shapes):
        with pytest.raises(CheckpointError, match='name') as error:
            read(str(path))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 600


def test_other_texts_of_a_file_are_made_printable(tmp_path):
    path = tmp_path / 'net.pth'
    for content in (
        {'\x1b[31m': {'a': {}}}, {'\x1b]0;title\x07' * 100: 3}, {'a\u202e': [1]},
        {'\x1b[31m': {'a': torch.ones(2)}, 'b': torch.ones(1)},
    ):  # fmt: skip
        torch.save(content, path)
        try:
            message = read_checkpoint(str(path)).wrapper or ''
        except CheckpointError as error:
            message = str(error)
        assert message.isprintable()
        assert len(message) < 1000
    path.write_bytes(b'\x1b[31mred\x1b[0m and \x08\x08 more\n')
    with pytest.raises(CheckpointError, match='is a text file') as error:
        read_checkpoint(str(path))
    assert str(error.value).isprintable()
