"""Small weights, as tensors and as files, for the tests of the reader."""

import hashlib
from pathlib import Path

import torch


def make_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        'conv.weight': torch.randn(8, 3, 3, 3),
        'bn.running_mean': torch.randn(8).half(),
        'bn.num_batches_tracked': torch.tensor(7),
    }


def file_bytes(tmp_path: Path, seed: int = 0, size: int = 50_000) -> bytes:
    path = tmp_path / f'source{seed}.pth'
    weights = {**make_weights(seed), 'large': torch.randn(size)}
    torch.save(weights, path)
    return path.read_bytes()


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
        assert found[key].dtype == value.dtype


def hashed(content: bytes, name: str = 'net') -> str:
    return f'{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth'


def files_in(folder: Path) -> list[str]:
    found = (path for path in folder.rglob('*') if path.is_file())
    return sorted(path.name for path in found if path.suffix != '.lock')
