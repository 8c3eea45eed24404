"""Where a checkpoint stands: each way of writing one, and how its file is found."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CheckpointError, printable
from ...files import FILE, path_of, what_is
from .download import (
    NotThereError,
    ask_for,
    cache_path,
    expected_digest,
    fetch,
    first_rank_first,
)

# As timm and transformers name their files, the safe format first.
_FILES = ('model.safetensors', 'pytorch_model.bin')
_LONGEST_PATH = 500


class Located(NamedTuple):
    """A file on this machine.

    Attributes:
        path: Of the file.
        downloaded: Whether it lies in the cache that downloads are put into.
    """

    path: Path
    downloaded: bool = False

    @property
    def digest(self) -> str | None:
        """Start of the sha256 that it must have, if that is known."""
        return expected_digest(self.path.name) if self.downloaded else None


def locate_checkpoint(
    source: str,
    download: bool = False,
    ask: bool = False,
    place: Callable[[str], Path] = cache_path,
) -> Path | str:
    """Find a checkpoint without reading it.

    Args:
        source: As :func:`~mmdet_backbones.weights.read_checkpoint` takes it.
        download: Put the file into the cache if it is not on this machine. In a
            distributed run every rank must call then; rank 0 downloads.
        ask: Ask the server for one byte of a file that is not on this machine.
        place: Gives the path of the file of an address; that of this package's own
            downloads if left out.

    Returns:
        The path of the file, or its http address if it is not on this machine.

    Raises:
        CheckpointError: If there is no such file or name, or, with ``download`` or
            ``ask``, if the server does not give it.
    """
    found = _find(source, download, ask, place)
    return found.path if isinstance(found, Located) else found


def bring(source: str) -> Located:
    """Find a checkpoint and download it if it is not on this machine.

    Raises:
        CheckpointError: If there is no such file, or it cannot be downloaded.
    """
    found = _find(source, download=True)
    assert isinstance(found, Located)
    return found


def _find(
    source: str,
    download: bool,
    ask: bool = False,
    place: Callable[[str], Path] = cache_path,
) -> Located | str:
    if not isinstance(source, str):
        raise CheckpointError(
            f'checkpoint must be a path or an address as text, got {source!r}'
        )
    scheme, separator, name = source.partition('://')
    if not separator:
        return Located(_local(source))
    if scheme not in SCHEMES:
        known = ', '.join(f'{known}://' for known in SCHEMES)
        raise CheckpointError(
            f"'{source}': checkpoint must be a path or start with one of {known}; "
            f'{scheme}:// is not supported'
        )
    if not download:
        return _of_scheme(scheme, name, source, place, ask_for if ask else None)
    with first_rank_first():
        return _of_scheme(scheme, name, source, place, fetch)


def _of_scheme(
    scheme: str,
    name: str,
    source: str,
    place: Callable[[str], Path],
    get: Callable[[str, Path], Path | None] | None,
) -> Located | str:
    """Find a file here, or get it from the first of its addresses that has it."""
    try:
        found = SCHEMES[scheme](name)
        if isinstance(found, Path):
            return Located(found)
        addresses = (found,) if isinstance(found, str) else found
        paths = {url: place(url) for url in addresses}
    except (ValueError, OSError) as error:
        raise CheckpointError(f"'{source}' cannot be had: {error}") from error
    for path in paths.values():
        if path.is_file():
            return Located(path, downloaded=True)
    if get is None:
        return addresses[0]
    missing: list[NotThereError] = []
    for url, path in paths.items():
        try:
            arrived = get(url, path)
        except NotThereError as error:
            missing.append(error)
            continue
        return Located(arrived, downloaded=True) if arrived else url
    raise missing[0]


def _local(source: str) -> Path:
    path = path_of(source)
    found = what_is(path if source else source)
    if found == FILE:
        return path
    if found.startswith('out of reach'):
        raise CheckpointError(
            f"There is no permission to look for the checkpoint '{source}': it is "
            f'{found}'
        )
    raise CheckpointError(
        f"The checkpoint '{printable(source, _LONGEST_PATH)}' is {found}: expected a "
        "file. Write init_cfg=dict(type='Pretrained', checkpoint='<path or http "
        "address>'), or init_cfg=None to train from scratch"
    )


def _torchvision(name: str) -> str:
    """Find the address behind ``torchvision://``.

    Without the name of weights the first ones are meant, ``IMAGENET1K_V1``, as in
    mmengine's loader (torchvision's own ``DEFAULT`` is mostly ``IMAGENET1K_V2``).
    ``resnet50.IMAGENET1K_V2`` and ``ResNet50_Weights.IMAGENET1K_V2`` name others,
    in capitals or not.
    """
    from mmengine.runner.checkpoint import get_torchvision_models
    from torchvision import models

    names = models.list_models(module=models)
    net, _, weights = name.lower().partition('.')
    net = net.removesuffix('_weights')
    if net not in names:
        # Older names, such as shufflenetv2_x1.0, are in mmengine's table only.
        return _look_up(name, get_torchvision_models(), 'torchvision')
    found = models.get_model_weights(net)
    members = {key.lower(): weight for key, weight in found.__members__.items()}
    chosen = members.get(weights or 'imagenet1k_v1')
    if chosen is None:
        there = ', '.join(f'torchvision://{net}.{key}' for key in found.__members__)
        raise ValueError(
            f"torchvision has no weights '{weights or 'IMAGENET1K_V1'}' of {net}: "
            f'write one of {there}'
            if there
            else f'torchvision publishes no weights of {net}'
        )
    return str(chosen.url)


def _timm(name: str) -> Path | str | tuple[str, ...]:
    """Find the file or addresses behind ``timm://resnet50`` or ``resnet50.a1_in1k``."""
    import timm

    tags = timm.list_pretrained(f'{name.partition(".")[0]}.*')
    if not timm.is_model(name) or ('.' in name and name not in tags):
        near = tags[:5] or get_close_matches(name, timm.list_pretrained(), n=3)
        hint = f': write timm://{" or timm://".join(near)}' if near else ''
        raise ValueError(f"timm publishes no weights '{name}'{hint}")
    cfg: Any = timm.get_pretrained_cfg(name)
    if cfg.file:
        return Path(cfg.file)
    if cfg.hf_hub_id:
        return find_in_hub(cfg.hf_hub_id, cfg.hf_hub_filename)
    if cfg.url:
        return cfg.url
    raise ValueError(f"timm publishes no weights of '{name}'")


def _hub(name: str) -> Path | tuple[str, ...]:
    """Find what is meant by ``hf://facebook/dinov2-base``, or by a file in it."""
    owner, _, rest = name.partition('/')
    repository, _, filename = rest.partition('/')
    if not repository:
        raise ValueError(
            'write the owner, the repository and, if it is not one of the usual names, '
            'the file: hf://facebook/dinov2-base/model.safetensors'
        )
    return find_in_hub(f'{owner}/{repository}', filename or None)


def _open_mmlab(name: str) -> str | Path:
    """Find the file behind ``open-mmlab://`` in mmengine's table."""
    from mmengine.runner import checkpoint as table

    name = table.get_deprecated_model_names().get(name, name)
    found = _look_up(name, table.get_external_models(), 'open-mmlab')
    if found.startswith(('http://', 'https://')):
        return found
    path = Path(table._get_mmengine_home()) / found
    if not path.is_file():
        raise ValueError(f'{path}, named in the own table of mmengine, is not there')
    return path


def _mmcls(name: str) -> str:
    from mmengine.runner.checkpoint import get_mmcls_models

    return _look_up(name, get_mmcls_models(), 'mmcls')


def _look_up(name: str, addresses: dict[str, str], scheme: str) -> str:
    if name in addresses:
        return addresses[name]
    near = get_close_matches(name, addresses, n=4, cutoff=0.5)
    hint = f': write {scheme}://{f" or {scheme}://".join(near)}' if near else ''
    raise ValueError(f'there is no {scheme}://{name}{hint}')


# Takes what follows `://`; gives a path, or the addresses that may have the file.
SCHEMES: dict[str, Callable[[str], Path | str | tuple[str, ...]]] = {
    'http': lambda name: f'http://{name}',
    'https': lambda name: f'https://{name}',
    'torchvision': _torchvision,
    'modelzoo': _torchvision,
    'timm': _timm,
    'hf': _hub,
    'open-mmlab': _open_mmlab,
    'openmmlab': _open_mmlab,
    'mmcls': _mmcls,
}
# Those that mmengine's own loader does not know.
OWN_SCHEMES = ('timm://', 'hf://')


def find_in_hub(repository: str, filename: str | None = None) -> Path | tuple[str, ...]:
    """Find a file in the hub's own cache; the network is not asked.

    Args:
        repository: Owner and name, ``timm/resnet50.a1_in1k``.
        filename: In it; the usual ones if left out.

    Returns:
        Its path, or the addresses at which it may be, the likeliest first.

    Raises:
        ValueError: If there can be no such repository.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    names = (filename,) if filename else _FILES
    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return tuple(hf_hub_url(repository, name) for name in names)
