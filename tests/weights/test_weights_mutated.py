"""Files with something changed in them: weights, or one clear error, in no time."""

import io
import itertools
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_worker import MEMORY, SECONDS, ReadingWorker
from safetensors.torch import save

pytestmark = pytest.mark.slow
ENOUGH = settings(
    derandomize=True,
    deadline=None,
    max_examples=1000,
    suppress_health_check=list(HealthCheck),
)
# Operations of a pickle, and what goes with them.
OPERATIONS = [
    b'(', b')', b'.', b'0', b'2', b'N', b'R', b'Q', b'\x81', b'\x85', b'\x86', b'\x87',
    b't', b'}', b']', b's', b'u', b'a', b'e', b'b', b'\x88', b'\x8f', b'h\x00',
    b'h\x01', b'h\x05', b'q\x00', b'r\xff\xff\xff\xff', b'j\xff\xff\xff\xff', b'K\xff',
    b'J\xff\xff\xff\xff', b'J\xff\xff\xff\x7f',
    b'\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f',
    b'\x8b\xff\xff\xff\x7f', b'X\xff\xff\xff\xff', b'U\xff', b'B\xff\xff\xff\x7f',
    b'c__builtin__\nbytearray\n', b'cposix\nsystem\n', b'ctorch\nFloatTensor\n',
    b'ctorch._utils\n_rebuild_qtensor\n', b'ctorch._utils\n_rebuild_sparse_tensor\n',
    b'ctorch._utils\n_rebuild_nested_tensor\n', b'cnumpy\nndarray\n',
    b'cnumpy\ndtype\n', b'cnumpy._core.multiarray\n_reconstruct\n',
    b'ccollections\nCounter\n',
    b'G\x7f\xf0\x00\x00\x00\x00\x00\x00', b'\x95\xff\xff\xff\xff\xff\xff\xff\x7f',
]  # fmt: skip
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(['flip', 'cut', 'insert', 'repeat', 'drop']),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.sampled_from(OPERATIONS),
    ),
    min_size=1,
    max_size=6,
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 1 << 70), st.floats(),
    st.text(max_size=5),    st.lists(st.integers(-1, 1 << 66), max_size=4), st.just({}),
    st.sampled_from(['F64', 'BF16', 'F8_E4M3', 'I64', 'X', 'BOOL']),
)  # fmt: skip


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {'a.weight': torch.rand(4, 3), 'a.bias': torch.rand(4), 'n': torch.tensor(3)}


def saved(new: bool) -> bytes:
    file = io.BytesIO()
    content = {
        'meta': {'epoch': 1, 'rates': np.float64(0.1), 'seen': {1, 2}},
        'state_dict': torch.nn.Linear(3, 4).state_dict(),
        'log': np.arange(3.0),
    }
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


CONTENTS = {'zip': saved(True), 'old': saved(False), 'safetensors': save(weights())}


def changed(content: bytes, changes) -> bytes:
    data = bytearray(content)
    for kind, place, value, operation in changes:
        at = int(place * max(len(data), 1))
        if kind == 'flip' and data:
            data[at] ^= value or 1
        elif kind == 'cut':
            del data[at:]
        elif kind == 'insert':
            data[at:at] = operation
        elif kind == 'repeat':
            data[at:at] = data[at : at + value] * (value % 7)
        else:
            del data[at : at + value % 17]
    return bytes(data)


@pytest.fixture(scope='module')
def read(tmp_path_factory):
    """Read a content in every way; anything but weights and an error is a fault."""
    worker, folder = ReadingWorker(), tmp_path_factory.mktemp('files')
    numbers = itertools.count()

    def go(content: bytes) -> set[str]:
        path = folder / f'net{next(numbers)}'
        path.write_bytes(content)
        kinds = set()
        for how in ('read', 'shapes', 'saved'):
            found = worker.read(path, how)
            assert found.kind in ('read', 'refused'), (how, found)
            assert found.seconds < SECONDS / 2, (how, found)
            assert found.memory < MEMORY // 2, (how, found)
            assert found.message.isprintable(), found
            kinds.add(found.kind)
        path.unlink()
        return kinds

    yield go
    worker.stop()


@pytest.mark.parametrize('kind', CONTENTS)
def test_what_is_changed_was_in_order(read, kind):
    assert read(CONTENTS[kind]) == {'read'}


@pytest.mark.parametrize('kind', CONTENTS)
def test_bytes(read, kind):
    @ENOUGH
    @given(CHANGES)
    def check(changes):
        read(changed(CONTENTS[kind], changes))

    check()


def test_pickles_in_sound_archives(read):
    """The check sums are right: what is wrong is the pickle itself."""
    with zipfile.ZipFile(io.BytesIO(CONTENTS['zip'])) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    pickle = next(name for name in entries if name.endswith('data.pkl'))

    @ENOUGH
    @given(CHANGES)
    def check(changes):
        target = io.BytesIO()
        with zipfile.ZipFile(target, 'w') as file:
            for name, content in entries.items():
                new = changed(content, changes) if name == pickle else content
                file.writestr(name, new)
        read(target.getvalue())

    check()


def test_headers_of_safetensors(read):
    content = CONTENTS['safetensors']
    size = struct.unpack('<Q', content[:8])[0]
    header = json.loads(content[8 : 8 + size])

    @ENOUGH
    @given(
        st.sampled_from(sorted(header)),
        st.sampled_from(['dtype', 'shape', 'data_offsets', 'more', '']),
        ODD,
    )
    def check(name, key, value):
        entry = {**header[name], key: value} if key else value
        new = json.dumps({**header, name: entry}).encode()
        read(struct.pack('<Q', len(new)) + new + content[8 + size :])

    check()
