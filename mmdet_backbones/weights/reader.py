"""Read a checkpoint as data: nothing in the file is ever executed."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from . import timm_source

# Keys under which training scripts store the weights; averaged weights first.
_WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they stand in a file.

    Attributes:
        state_dict: Tensors by name, ``module.`` of data-parallel runs removed.
        source: What the user wrote as ``checkpoint``.
        sha256: Of the file.
    """

    state_dict: dict[str, Tensor]
    source: str
    sha256: str


def read_checkpoint(source: str, map_location: str = 'cpu') -> Checkpoint:
    """Read the weights of a file or an address.

    Args:
        source: Path of a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file, an
            ``http(s)://`` address, downloaded once into torch's hub cache, or
            ``timm://`` and the name of a model, with or without a tag.
        map_location: Device the tensors are put on, as in ``torch.load``.

    Returns:
        The tensors with the usual wrappers taken off.

    Raises:
        CheckpointError: If the file is missing, is no checkpoint, holds objects
            other than weights, or the address cannot be reached.
    """
    path = _local_path(source)
    if not path.is_file():
        kind = 'a directory' if path.is_dir() else 'not there'
        raise CheckpointError(
            f"The checkpoint '{source}' is {kind}: expected a file. Write "
            "init_cfg=dict(type='Pretrained', checkpoint='<path or http address>'), "
            'or init_cfg=None to train from scratch'
        )
    content = _load(path, source, map_location)
    state_dict = _unwrap(content)
    if not state_dict:
        raise CheckpointError(
            f"'{source}' holds no weights: expected tensors by name, or those under "
            f'one of {", ".join(_WRAPPERS)}; got {_outline(content)}'
        )
    return Checkpoint(state_dict, source, _sha256(path))


def _local_path(source: str) -> Path:
    scheme = urlparse(source).scheme
    if scheme in ('http', 'https'):
        return _download(source)
    if scheme == 'timm':
        return _of_timm(source)
    if '://' in source:
        raise CheckpointError(
            f"'{source}': checkpoint must be a path, an http(s) address or "
            f'timm://<name>; {scheme}:// is not supported'
        )
    return Path(source).expanduser()


def _of_timm(source: str) -> Path:
    try:
        found = timm_source.locate(source.removeprefix('timm://'))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"'{source}' cannot be had: {error}") from error
    return _download(found) if isinstance(found, str) else found


def _download(url: str) -> Path:
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # torch.hub writes to a temporary file and renames it.
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise CheckpointError(
                f"'{url}' cannot be downloaded ({error}). Download it elsewhere and "
                f'put it at {path}'
            ) from error
    return path


def _load(path: Path, source: str, map_location: str) -> Any:
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path, device=map_location)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"'{source}' cannot be read: {error}") from error
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{source}' holds more than weights, or is no checkpoint, and is not "
            f'opened: {str(error).splitlines()[0]}. If you trust it, save only its '
            'tensors: torch.save(model.state_dict(), path)'
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"'{source}' cannot be read as a checkpoint: "
            f'{type(error).__name__}: {error}. Is the file complete?'
        ) from error


def _unwrap(content: Any) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        return {}
    return {
        str(key).removeprefix('module.'): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def _outline(content: Any) -> str:
    if isinstance(content, Mapping):
        return f'a dict of {", ".join(map(str, list(content)[:5])) or "nothing"}'
    return f'a {type(content).__name__}'


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
