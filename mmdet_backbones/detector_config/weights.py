"""Which weights a backbone of a config starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..weights.loading.init_cfg import Terms, init_cfg_of, split_entries


class Pretrained(NamedTuple):
    """What a config says about pretrained weights.

    Attributes:
        checkpoint: Path, address or name.
        prefix: Of the keys to take, or None.
        key: Below ``backbone``, where it stands, such as ``init_cfg`` or
            ``init_cfg.0``.
        terms: What may be missing or left over.
    """

    checkpoint: str
    prefix: str | None
    key: str
    terms: Terms = Terms()


def pretrained_of(backbone: Mapping[str, Any]) -> Pretrained | None:
    """Find the weights that a backbone starts from.

    Args:
        backbone: Its config.

    Returns:
        Those of ``init_cfg``, of ``pretrained`` or of ``checkpoint_path``; None if it
        starts from random weights.

    Raises:
        TypeError: If ``init_cfg`` is no dict with a ``type``, nor a list of such.
    """
    given = init_cfg_of(backbone)
    entries, _ = split_entries(given)
    for entry in entries[:1]:
        several = isinstance(given, (list, tuple))
        return Pretrained(
            str(entry.get('checkpoint')),
            entry.get('prefix'),
            f'init_cfg.{given.index(entry)}' if several else 'init_cfg',
            Terms.of(entry),
        )
    pretrained = backbone.get('pretrained')
    if pretrained is True and 'model_name' in backbone:
        return Pretrained(f'timm://{backbone["model_name"]}', None, 'pretrained')
    if isinstance(pretrained, str):
        return Pretrained(pretrained, None, 'pretrained')
    if backbone.get('checkpoint_path'):
        return Pretrained(str(backbone['checkpoint_path']), None, 'checkpoint_path')
    return None
