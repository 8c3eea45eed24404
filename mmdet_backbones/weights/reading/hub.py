"""Repositories of the Hugging Face hub: in its cache, and at which addresses."""

from __future__ import annotations

from pathlib import Path

# As timm and transformers name their files, the safe format first.
_FILES = ('model.safetensors', 'pytorch_model.bin')


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


def is_forbidden(url: str) -> bool:
    """Whether HF_HUB_OFFLINE says that the hub is not to be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) and _is_of_hub(url)


def authorization(url: str) -> dict[str, str]:
    """Return the header that opens the user's own and gated repositories."""
    if not _is_of_hub(url):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    return {'Authorization': f'Bearer {token}'} if token else {}


def _is_of_hub(url: str) -> bool:
    from huggingface_hub import constants

    return url.startswith(f'{constants.ENDPOINT}/')
