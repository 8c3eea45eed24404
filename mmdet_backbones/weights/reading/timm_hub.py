"""Weights that timm publishes, found by the name of the model."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

# As timm names its files on the hub, the safe format first.
_FILES = ('model.safetensors', 'pytorch_model.bin')


def locate(name: str, download: bool = True) -> str | Path:
    """Find the weights behind ``timm://name``.

    Args:
        name: Of a model, with or without the tag of its weights, for example
            ``'resnet50'`` or ``'resnet50.a1_in1k'``.
        download: Put a file of the Hugging Face hub into the hub's cache if it is
            not there; without it the hub is not asked.

    Returns:
        The path of a file, or an http address.

    Raises:
        ValueError: If timm has no weights of that name; the nearest are listed.
        OSError: If the hub cannot be reached.
    """
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
        return _from_hub(cfg.hf_hub_id, cfg.hf_hub_filename, download)
    if cfg.url:
        return cfg.url
    raise ValueError(f"timm publishes no weights of '{name}'")


def _from_hub(repo_id: str, filename: str | None, download: bool) -> str | Path:
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    names = (filename,) if filename else _FILES
    for name in names:
        # One file in the cache is enough, and asks nothing of the network.
        cached = try_to_load_from_cache(repo_id, name)
        if isinstance(cached, str):
            return Path(cached)
    if not download:
        return hf_hub_url(repo_id, names[0])
    for name in names:
        try:
            return Path(hf_hub_download(repo_id, name))
        except LocalEntryNotFoundError as error:
            raise OSError(
                f'{repo_id} is not in the cache of the Hugging Face hub, and the hub '
                'cannot be reached'
            ) from error
        except EntryNotFoundError:
            continue
    raise OSError(f'{repo_id} on the Hugging Face hub has no {" or ".join(names)}')
