"""What stands beside weights on this machine: the config of a net and of its images."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...levels import Preprocess

_CONFIG, _PROCESSOR = 'config.json', 'preprocessor_config.json'


def read_config(model: str) -> dict[str, Any] | None:
    """Read the config of a net; the network is not asked.

    Args:
        model: A folder, the path of its ``config.json`` or of a file beside it, or the
            name of a repository that is in the hub's cache.

    Returns:
        Its entries; None if there is no such file.

    Raises:
        UserError: If the file is no JSON of a config.
    """
    return _read(model, _CONFIG)


def read_preprocess(model: str) -> Preprocess | None:
    """Read how images are prepared for weights.

    Args:
        model: As for :func:`read_config`.

    Returns:
        Mean and standard deviation of the config of the image processor beside the
        weights; None if there is none, or it does not normalise.

    Raises:
        UserError: If the file is no JSON of a config, or what it says is no mean and
            standard deviation of channels.
    """
    given = _read(model, _PROCESSOR)
    if given is None or not given.get('do_normalize', True):
        return None
    mean, std = given.get('image_mean'), given.get('image_std')
    if mean is None or std is None:
        return None
    values = [mean, std] if isinstance(mean, list) and isinstance(std, list) else []
    if not values or not all(map(_is_number, (*mean, *std))) or min(std) <= 0:
        raise UserError(
            f"{_PROCESSOR} of '{model}': image_mean and image_std must be a number for "
            f'each channel, got {mean!r} and {std!r}'
        )
    # It is applied to values that were multiplied by this before.
    factor = given.get('rescale_factor', 1 / 255) if given.get('do_rescale', 1) else 1
    mean, std = (tuple(round(v / factor, 3) for v in numbers) for numbers in values)
    flipped = given.get('do_flip_channel_order', False)
    return Preprocess(mean, std, 'bgr' if flipped else 'rgb')


def cached_models(architectures: Collection[str]) -> list[str]:
    """Name the repositories in the hub's cache that are nets of some architectures.

    Args:
        architectures: As ``model_type`` in ``config.json`` names them.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    found = []
    for folder in sorted(Path(HF_HUB_CACHE).glob('models--*--*')):
        name = '/'.join(folder.name.split('--')[1:])
        try:
            config = read_config(name) or {}
        except UserError:
            continue
        if config.get('model_type') in architectures:
            found.append(name)
    return found


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _read(model: str, filename: str) -> dict[str, Any] | None:
    path = _find(model, filename)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as a config: {error}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"'{path}' is no config: it holds a {type(found).__name__}")
    return dict(found)


def _find(model: str, filename: str) -> Path | None:
    path = Path(model)
    if path.exists():
        found = (path if path.is_dir() else path.parent) / filename
        return found if found.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, filename)
    except ValueError:  # no name that a repository can have
        return None
    return Path(cached) if isinstance(cached, str) else None
