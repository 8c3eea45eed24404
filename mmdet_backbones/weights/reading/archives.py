"""Zip archives: those of torch.save are told from numpy's, bombs are refused."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError

# numpy compresses; random weights hardly shrink, zeros to a thousandth.
_LARGEST_RATIO = 20
_SLACK = 1 << 26


def check_archive(path: Path, source: str) -> str:
    """Tell what wrote a zip archive, from its table of contents alone.

    Returns:
        ``'torch'`` or ``'npz'``.

    Raises:
        CheckpointError: If it is damaged, holds something else, or would grow far
            beyond its size when it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"'{source}' is cut off or damaged ({error}): it has "
            f'{path.stat().st_size} bytes. Download it again'
        ) from error
    kind = _kind([entry.filename for entry in entries], source)
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    # torch.save does not compress: its entries take the space that they declare.
    allowed = size if kind == 'torch' else size * _LARGEST_RATIO + _SLACK
    if unpacked > allowed:
        raise CheckpointError(
            f"'{source}' is not opened: its {size} bytes declare {unpacked} bytes of "
            'content, which no weights do. If it was packed again by hand, save it '
            'with torch.save or numpy.savez'
        )
    return kind


def _kind(names: list[str], source: str) -> str:
    ends = {name.split('/', 1)[-1] for name in names}
    if 'constants.pkl' in ends:
        raise CheckpointError(
            f"'{source}' is a TorchScript archive, code with weights, and is not "
            'opened. If you trust it: torch.save(torch.jit.load(path).state_dict(), '
            "'weights.pth')"
        )
    if 'data.pkl' in ends:
        return 'torch'
    if names and all(name.endswith('.npy') for name in names):
        return 'npz'
    first = ', '.join(names[:3]) or 'nothing'
    raise CheckpointError(
        f"'{source}' is a zip archive of other files ({first}): unpack it and write "
        'the path of the weights'
    )


def read_npz(path: Path, source: str, map_location: str) -> dict[str, Tensor]:
    """Read the arrays of ``numpy.savez`` as tensors.

    Raises:
        CheckpointError: If it is damaged or holds anything but arrays of numbers.
    """
    shapes_of_npz(path, source)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {
                name: torch.from_numpy(arrays[name]).to(map_location)
                for name in arrays.files
            }
    except OSError:
        raise
    # A damaged archive can fail anywhere in zipfile and zlib.
    except Exception as error:
        raise _refused(source, error) from error


def shapes_of_npz(path: Path, source: str) -> dict[str, tuple[int, ...]]:
    """Read names and shapes, each compared with the size of its entry.

    Raises:
        CheckpointError: If a header is damaged, or promises more than there is.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    shape, dtype = _npy_header(file)
                    data = entry.file_size - file.tell()
                if dtype.hasobject:
                    raise ValueError(f'{entry.filename} holds Python objects')
                if math.prod(shape) * dtype.itemsize != data:
                    raise ValueError(
                        f'{entry.filename} promises the shape {shape} of {dtype} and '
                        f'has {data} bytes'
                    )
                shapes[entry.filename.removesuffix('.npy')] = shape
    except OSError:
        raise
    except Exception as error:
        raise _refused(source, error) from error
    return shapes


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'version {version} of the .npy format is not for weights')
    return shape, dtype


def _refused(source: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"'{source}' cannot be read as arrays of numbers by name ({error}): save "
        'such with numpy.savez(path, **arrays)'
    )
