"""Small files that ask for far more than they are: memory, time or code."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

HUGE = 1 << 33
START = b'\x80\x02'
_WRAPPERS = ('state_dict', 'model', 'module', 'ema', 'net', 'params', 'teacher')


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(content)]) + content


def text(value: str) -> bytes:
    return b'X' + struct.pack('<I', len(value.encode())) + value.encode()


def name(module: str, what: str) -> bytes:
    return f'c{module}\n{what}\n'.encode()


def under_a(value: bytes) -> bytes:
    """A pickle of a dict with one key."""
    return START + b'}' + text('a') + value + b's.'


def archive(path: Path, pickle: bytes, data: bytes = b'') -> None:
    """Write what torch.save would, around a pickle."""
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('net/data.pkl', pickle)
        file.writestr('net/byteorder', 'little')
        file.writestr('net/data/0', data)
        file.writestr('net/version', '3\n')


def storage(count: int, kind: str = 'FloatStorage', key: str = '0') -> bytes:
    kind_of = name('torch', kind)
    return (
        b'('
        + text('storage')
        + kind_of
        + text(key)
        + text('cpu')
        + number(count)
        + b'tQ'
    )


def tensor(count: int, size: int, stride: int = 1, tail: bytes = b'\x89') -> bytes:
    empty = name('collections', 'OrderedDict') + b')R'
    shape = number(size) + b'\x85' + number(stride) + b'\x85'
    inside = storage(count) + b'K\x00' + shape + tail + empty
    return name('torch._utils', '_rebuild_tensor_v2') + b'(' + inside + b'tR'


def shared_tuples(floors: int = 39) -> bytes:
    """A tuple of two to the power of ``floors`` leaves."""
    content = b'()q\x00'
    for floor in range(floors):
        content += b'h' + bytes([floor]) + b'h' + bytes([floor])
        content += b'\x86q' + bytes([floor + 1])
    return content + b't'


def called(module: str, what: str, *args: bytes) -> bytes:
    return under_a(name(module, what) + b'(' + b''.join(args) + b'tR')


_CORE = 'numpy._core.multiarray'
_LIST = b']'
PICKLES: dict[str, bytes] = {
    'bytearray': called('__builtin__', 'bytearray', number(HUGE)),
    'tensor called': called('torch', 'FloatTensor', number(HUGE)),
    'tensor made': under_a(name('torch', 'Tensor') + number(HUGE) + b'\x85\x81'),
    'storage called': called('torch.storage', 'UntypedStorage', number(HUGE)),
    'array called': called('numpy', 'ndarray', number(HUGE) + b'\x85'),
    'array rebuilt': called(
        _CORE, '_reconstruct', name('numpy', 'ndarray'), number(HUGE) + b'\x85',
        text('b'),
    ),
    'array of tuples': called(
        _CORE, '_reconstruct', shared_tuples(), b'K\x00\x85', text('b')
    ),
    'a wide number': called(
        _CORE, 'scalar', name('numpy', 'dtype') + text('V2000000000') + b'\x85R'
    ),
    'tuple as a key': START + b'}' + shared_tuples() + b'K\x01s.',
    'tuple in a set': called('__builtin__', 'set', _LIST + shared_tuples() + b'a'),
    'tuple counted': called('collections', 'Counter', _LIST + shared_tuples() + b'a'),
    'tuple in pairs': called(
        'collections', 'OrderedDict', _LIST + shared_tuples() + b'K\x01\x86a'
    ),
    'tuple called': under_a(shared_tuples() + b')R'),
    'tuple as a storage': under_a(shared_tuples() + b'Q'),
    'numbers that collide': START + b'}(' + b''.join(
        number(((1 << 61) - 1) * 32 * (n + 1)) + b'K\x00' for n in range(20_000)
    ) + b'u.',
    'marks': START + b'(' * 3_000_000 + b'.',
    'sets': START + b'\x8f' * 1_000_000 + b'.',
    'one text encoded often': START + text('a' * 1_000_000) + b'q\x00'
    + (name('_codecs', 'encode') + b'h\x00' + text('latin1') + b'\x86R') * 20_000
    + b'.',
    'a slow encoding': called(
        '_codecs', 'encode', text('\xe9' * 200_000), text('punycode')
    ),
    'one list copied often': START + b']q\x00(' + b'K\x01' * 100_000 + b'e'
    + (name('torch', 'Size') + b'h\x00\x85R') * 10_000 + b'.',
    'one dict copied often': START + name('collections', 'OrderedDict')
    + b')Rq\x01}q\x00('
    + b''.join(text(f'{n:05}') + b'K\x00' for n in range(50_000)) + b'uh\x01'
    + b'h\x00b' * 50_000 + b'.',
    'storage claims': under_a(tensor(HUGE, HUGE)),
    'tensor claims': under_a(tensor(4, HUGE)),
    'shape of 2^64': under_a(tensor(4, 1 << 64, 0)),
    'quantised': called(
        'torch._utils', '_rebuild_qtensor', storage(4, 'QInt8Storage'), b'K\x00',
        number(HUGE) + b'\x85', b'K\x00\x85', name('torch', 'per_tensor_affine')
        + b'G' + struct.pack('>d', 1.0) + b'K\x00\x87', b'\x89', b'N',
    ),
}  # fmt: skip


def _wrappers(path: Path) -> None:
    inner = {f'entry{n}': 0 for n in range(20_000)}
    for _ in range(6):
        inner = dict.fromkeys(_WRAPPERS, inner) | {f'x{n}': 0 for n in range(2000)}
    torch.save(inner, path)


def _expanded(path: Path) -> None:
    wide = torch.zeros(1).expand(1 << 24)
    torch.save({f'layer{n}.weight': wide for n in range(5000)}, path)


def _expanded_huge(path: Path) -> None:
    torch.save({'a': torch.zeros(1).expand(1 << 40)}, path)


def _old(path: Path) -> None:
    file = io.BytesIO()
    torch.save({'a': torch.zeros(4)}, file, _use_new_zipfile_serialization=False)
    content = file.getvalue()
    place = content.index(b'K\x04', content.index(b'cpu'))
    path.write_bytes(content[:place] + number(HUGE) + content[place + 2 :])


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('net/data.pkl', START + b'}.')
        file.writestr('net/DATA.PKL', PICKLES['bytearray'])


def _packed(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('net/data.pkl', START + b'}.', zipfile.ZIP_DEFLATED)
        file.writestr('net/data/0', bytes(1000))


def safetensors(path: Path, header: object, data: bytes = b'') -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(content)) + content + data)


def entry(*shape: int, end: int = 16) -> dict:
    return {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [0, end]}


def _sparse(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        safetensors(path, {'a': entry(size // 4, end=size)})
        os.truncate(path, path.stat().st_size + size)

    return write


def _promise(path: Path) -> None:
    path.write_bytes(struct.pack('<Q', 3 << 30) + b'{"a":')
    os.truncate(path, (3 << 30) + 100)


FILES: dict[str, Callable[[Path], None]] = {
    **{
        key: lambda path, pickle=pickle: archive(path, pickle, bytes(16))
        for key, pickle in PICKLES.items()
    },
    'wrappers within wrappers': _wrappers,
    'many views of one number': _expanded,
    'a huge view of one number': _expanded_huge,
    'old file that claims': _old,
    'two pickles in one file': _twice,
    'packed entries': _packed,
    'a hole of 1 TB': _sparse(1 << 40),
    'a hole of 4 GB': _sparse(1 << 32),
    'a header of GBs': _promise,
    'a header of many tensors': lambda path: safetensors(
        path, {f'layer.{n}': entry(0, end=0) for n in range(100_000)}
    ),
    'offsets that overlap': lambda path: safetensors(
        path, {f'layer.{n}': entry(4) for n in range(5)}, bytes(16)
    ),
    'a shape of 2^64': lambda path: safetensors(path, {'a': entry(1 << 64)}, bytes(16)),
    'a deep header': lambda path: safetensors(path, b'{"a":' + b'[' * 1_000_000),
    'a long name': lambda path: safetensors(
        path, {'a' * 2_000_000: entry(4)}, bytes(16)
    ),
}
