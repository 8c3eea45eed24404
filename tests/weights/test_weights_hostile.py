"""Files that are no weights, or worse: each a clear error, at once, and no trace."""

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmdet_backbones.weights import CheckpointError, check_finite, read_checkpoint
from mmdet_backbones.weights.reading.reader import read_shapes

SECONDS = 2


@pytest.fixture(scope='module')
def weights() -> dict[str, torch.Tensor]:
    return {f'layer{n}.weight': torch.randn(64, 64) for n in range(8)}


@pytest.fixture
def refused(tmp_path):
    """Read a file that must be refused: quickly, and with nothing left behind."""

    def check(path: Path, *words: str, read=read_checkpoint) -> str:
        before = {p: p.stat().st_size for p in tmp_path.rglob('*')}
        start = time.perf_counter()
        with pytest.raises(CheckpointError) as error:
            read(str(path))
        seconds = time.perf_counter() - start
        assert seconds < SECONDS
        assert {p: p.stat().st_size for p in tmp_path.rglob('*')} == before
        message = str(error.value)
        assert str(path) in message
        for word in words:
            assert word in message
        # What torch advises is to run the code in the file.
        assert 'weights_only=False' not in message
        assert '\x1b' not in message
        return message

    return check


def zip_of(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


@pytest.mark.parametrize('kept', [0.02, 0.5, 0.99])
@pytest.mark.parametrize('kind', ['zip', 'old', 'safetensors'])
def test_truncated(tmp_path, weights, refused, kind, kept):
    path = tmp_path / 'net.pth'
    if kind == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == 'zip')
    os.truncate(path, int(path.stat().st_size * kept))
    refused(path, 'ownload it again')
    if kind != 'old':
        refused(path, read=read_shapes)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.npz', '.pkl'])
def test_zero_length(tmp_path, refused, suffix):
    path = tmp_path / f'net{suffix}'
    path.touch()
    refused(path, 'is empty')


def test_zip_bomb_of_torch(tmp_path, refused):
    path = tmp_path / 'net.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('net/data.pkl', b'\x80\x02}.')
        with archive.open('net/data/0', 'w', force_zip64=True) as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    refused(path, 'declare 3145', 'no weights do')
    refused(path, read=read_shapes)


def test_zip_entries_that_overlap(tmp_path, refused):
    """Many entries for the same bytes: small, and not compressed."""
    path = tmp_path / 'net.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('net/data.pkl', b'\x80\x02}.')
        archive.writestr('net/data/0', bytes(1 << 20))
        entry = archive.infolist()[1]
        for _ in range(2000):
            archive.filelist.append(entry)
    refused(path, 'no weights do')


def save_npz(path: Path, save=np.savez, **arrays: np.ndarray) -> None:
    with path.open('wb') as file:
        save(file, **arrays)


def npz_with_a_false_shape(path: Path) -> None:
    file = io.BytesIO()
    header = {'descr': '<f4', 'fortran_order': False, 'shape': (1 << 62, 4)}
    np.lib.format.write_array_header_1_0(file, header)
    zip_of(path, **{'a.npy': file.getvalue() + bytes(64)})


@pytest.mark.parametrize(
    'save',
    [
        lambda path: save_npz(path, a=np.zeros((3, 4), np.float32)),
        lambda path: save_npz(path, a=np.array([object()], dtype=object)),
        lambda path: save_npz(
            path, np.savez_compressed, a=np.zeros(75_000_000, np.float32)
        ),
        npz_with_a_false_shape,
    ],
    ids=['arrays', 'objects', 'bomb', 'false shape'],
)
@pytest.mark.parametrize('suffix', ['.npz', '.pth'])
def test_npz_is_told_from_weights_and_what_to_do(tmp_path, refused, save, suffix):
    path = tmp_path / f'net{suffix}'
    save(path)
    words = 'is an .npz archive of numpy', 'torch.save or .safetensors', 'numpy.load('
    refused(path, *words)
    refused(path, *words, read=read_shapes)


def test_the_advice_about_npz_makes_weights(tmp_path, weights):
    save_npz(tmp_path / 'net.npz', **{k: v.numpy() for k, v in weights.items()})
    with np.load(tmp_path / 'net.npz') as arrays:
        torch.save(
            {k: torch.from_numpy(v) for k, v in arrays.items()}, tmp_path / 'net.pth'
        )
    found = read_checkpoint(str(tmp_path / 'net.pth')).state_dict
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def safetensors(header: bytes, data: bytes = b'', length: int | None = None) -> bytes:
    return struct.pack('<Q', len(header) if length is None else length) + header + data


@pytest.mark.parametrize('length', [1 << 62, 1 << 40, 1 << 30, 1000, 0])
def test_safetensors_with_an_absurd_header_length(tmp_path, refused, length):
    path = tmp_path / 'net.safetensors'
    path.write_bytes(safetensors(b'{"a":1}', bytes(64), length))
    refused(path)
    refused(path, read=read_shapes)


@pytest.mark.parametrize(
    'tensor',
    [
        {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 64]},
        {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]},
        {'dtype': 'F32', 'shape': [1 << 62, 1 << 62], 'data_offsets': [0, 64]},
        {'dtype': 'F32', 'shape': [16], 'data_offsets': [64, 0]},
        {'dtype': 'X99', 'shape': [16], 'data_offsets': [0, 64]},
        3,
    ],
)
def test_safetensors_with_a_header_that_lies(tmp_path, refused, tensor):
    path = tmp_path / 'net.pth'
    path.write_bytes(safetensors(json.dumps({'a': tensor}).encode(), bytes(64)))
    refused(path)
    refused(path, read=read_shapes)


class RunsCode:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('suffix', ['.pth', '.pkl', '.safetensors', '.npz'])
@pytest.mark.parametrize('kind', ['zip', 'old', 'plain'])
def test_a_pickle_that_would_run_code(tmp_path, weights, refused, kind, suffix):
    marker = tmp_path / 'code-ran'
    content = {'state_dict': weights, 'hook': RunsCode(marker)}
    path = tmp_path / f'net{suffix}'
    if kind == 'plain':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    assert b'system' in path.read_bytes()
    if suffix == '.safetensors' and kind != 'zip':
        refused(path)
    elif kind == 'plain':
        refused(path, 'is a plain pickle', 'could run any code')
    else:
        refused(path, 'holds more than weights', 'posix.system')
    assert not marker.exists()
    with path.open('rb') as file:
        if kind == 'plain':
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
    assert marker.exists(), 'the file was harmless: the test proves nothing'


def test_a_numpy_object_array_in_a_pickle_runs_nothing(tmp_path, refused):
    """Numpy's classes are allowed for mmengine's checkpoints; objects are not."""
    marker = tmp_path / 'code-ran'
    path = tmp_path / 'net.pth'
    torch.save({'a': np.array([RunsCode(marker)], dtype=object)}, path)
    refused(path, 'numpy.dtypes.ObjectDType')
    assert not marker.exists()


@pytest.mark.parametrize('new', [True, False])
def test_pickle_protocols_that_torch_does_not_read(tmp_path, weights, refused, new):
    path = tmp_path / 'net.pth'
    torch.save(weights, path, pickle_protocol=4, _use_new_zipfile_serialization=new)
    refused(path, 'pickle_protocol=4', 'torch.save(state_dict, path)')


def test_plain_pickles_of_detectron2(tmp_path, refused):
    path = tmp_path / 'R-50.pkl'
    model = {'stem.conv1.weight': np.zeros((64, 3, 7, 7), np.float32)}
    path.write_bytes(pickle.dumps({'model': model, '__author__': 'MSRA'}))
    refused(path, 'is a plain pickle', 'detectron2', 'torch.save({k:')


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16', 'float64'])
def test_nan_and_infinity(tmp_path, weights, refused, value, dtype):
    path = tmp_path / 'net.pth'
    bad = {k: v.clone().to(getattr(torch, dtype)) for k, v in weights.items()}
    for n in range(6):
        bad[f'layer{n}.weight'][n, 63 - n] = value
    torch.save(bad, path)
    message = refused(path, '6 of 8 tensors', 'layer0.weight, layer1.weight', ', ...')
    assert 'layer6.weight' not in message
    loaded = read_checkpoint(str(path), finite=False).state_dict
    check_finite({'layer7.weight': loaded['layer7.weight']}, 'net.pth')
    with pytest.raises(CheckpointError, match='1 of 1 tensors'):
        check_finite({'layer5.weight': loaded['layer5.weight']}, 'net.pth')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'<!DOCTYPE html><html><body>Sign in</body></html>', 'looks like a web page'),
        (b'\n <html>', 'looks like a web page'),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', 'looks like a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:1', 'git lfs pull'),
        (b'learning rate 0.01\n', "is a text file ('learning rate 0.01')"),
        (b'{"weight_map": {}}', 'is a text file'),
        (b'\x1f\x8b\x08' + bytes(32), 'gunzip'),
        (b'\x89HDF\r\n\x1a\n' + bytes(32), 'HDF5'),
        (b'\x93NUMPY\x01\x00' + bytes(32), 'single array'),
        (bytes(4096), 'is no checkpoint'),
        (bytes(257) + b'ustar' + bytes(300), 'tar archive'),
    ],
)
@pytest.mark.parametrize('suffix', ['.pth', '.pkl'])
def test_other_files(tmp_path, refused, content, words, suffix):
    path = tmp_path / f'net{suffix}'
    path.write_bytes(content)
    refused(path, words)


def test_other_zip_archives(tmp_path, refused):
    path = tmp_path / 'net.zip'
    zip_of(path, **{'readme.txt': b'hello', 'net.pth': b'PK'})
    refused(path, 'of other files (readme.txt, net.pth)', 'unpack it')
    path.write_bytes(b'PK\x05\x06' + bytes(18))
    refused(path, 'of other files (nothing)')


def test_torchscript(tmp_path, refused):
    path = tmp_path / 'net.pt'
    torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)).save(path)
    refused(path, 'TorchScript', 'torch.jit.load(path).state_dict()')


def test_a_directory(tmp_path, refused):
    refused(tmp_path, 'is a directory')


def test_no_permission(tmp_path, weights, refused):
    path = tmp_path / 'net.pth'
    torch.save(weights, path)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        # Root may read everything: go on as nobody.
        os.chmod(tmp_path, 0o755)
        for folder in tmp_path.parents[:2]:
            os.chmod(folder, 0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match='no permission'):
            read_checkpoint(str(path))
        with pytest.raises(CheckpointError, match='no permission'):
            read_shapes(str(path))
    finally:
        os.seteuid(user)


def test_a_thousand_extra_keys(tmp_path, weights):
    path = tmp_path / 'net.pth'
    extra = {f'head.{n}.weight': torch.zeros(4) for n in range(1000)}
    torch.save({**extra, **weights}, path)
    start = time.perf_counter()
    assert len(read_checkpoint(str(path)).state_dict) == 1008
    assert time.perf_counter() - start < SECONDS


def test_a_thousand_keys_without_weights(tmp_path, refused):
    path = tmp_path / 'net.pth'
    torch.save({f'setting{n}': n for n in range(1000)}, path)
    message = refused(path, 'holds no weights', 'setting0, setting1', ', ...')
    assert len(message) < 500


@pytest.mark.parametrize('content', [[torch.zeros(2)], torch.zeros(2), 3, {}, None])
def test_no_names(tmp_path, refused, content):
    path = tmp_path / 'net.pth'
    torch.save(content, path)
    refused(path, 'holds no weights')


def test_names_that_are_not_text(tmp_path, refused):
    path = tmp_path / 'net.pth'
    torch.save({n: torch.zeros(2) for n in range(9)}, path)
    refused(path, '0 is named by a int', 'and 4 more')


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ('make', 'word'),
    [
        (quantised, 'is quantised'),
        (lambda: torch.eye(3).to_sparse(), 'is sparse'),
        (lambda: torch.eye(3).to_sparse_csr(), 'is sparse'),
        (lambda: torch.empty(3, device='meta'), 'no data'),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_tensors_that_no_net_takes(tmp_path, weights, refused, make, word):
    path = tmp_path / 'net.pth'
    torch.save({**weights, 'odd': make()}, path)
    refused(path, 'odd', word)


def test_tensors_larger_than_the_file(tmp_path, refused):
    path = tmp_path / 'net.pth'
    torch.save({'a': torch.zeros(1).expand(1 << 40)}, path)
    assert path.stat().st_size < 10_000
    refused(path, 'claim tensors of')


def test_a_storage_that_claims_more_than_its_entry(tmp_path, weights, refused):
    """The pickle says how long each storage is; the archive has less."""
    path, lying = tmp_path / 'net.pth', tmp_path / 'lying.pth'
    torch.save({'a': torch.zeros(70000)}, path)
    count, huge = struct.pack('<I', 70000), struct.pack('<I', 0x7FFFFFFF)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(lying, 'w') as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith('data.pkl'):
                assert content.count(count) == 2
                content = content.replace(count, huge)
            new.writestr(entry.filename, content)
    refused(lying)


def test_a_dict_that_contains_itself(tmp_path, refused):
    path = tmp_path / 'net.pth'
    content: dict = {'epoch': 3}
    content['model'] = content
    torch.save(content, path)
    refused(path, 'holds no weights')


def test_damaged_bytes_never_end_the_process(tmp_path, run_python):
    """Hundreds of files with a few bytes changed: weights or a clear error."""
    done = run_python(
        'tests/helpers/damaged_files.py', str(tmp_path), OMP_NUM_THREADS='1'
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert set(counts) == {'zip', 'old', 'safetensors'}
    assert all(int(count) > 20 for count in counts.values()), counts
