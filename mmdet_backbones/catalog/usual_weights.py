"""Which weights the backbone of a config usually starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import UserError
from .entries import find, load_source

_BY_NAME = {'TIMMBackbone': 'timm', 'TorchvisionBackbone': 'torchvision'}
# Arguments by which a class reads a file, and which leave the net as it is.
_READING = ('convert_weights',)


class UsualWeights(NamedTuple):
    """Weights, and what a config says to load them.

    Attributes:
        checkpoint: As ``init_cfg`` takes it.
        prefix: That the class needs, or None.
        arguments: Of the class, by which it reads them.
    """

    checkpoint: str
    prefix: str | None = None
    arguments: Mapping[str, Any] = {}


def usual_weights(kind: str, value_of: Callable[[str], Any]) -> UsualWeights | None:
    """Look up published weights for a backbone as it is configured.

    Args:
        kind: Its type.
        value_of: Gives an argument of it, as configured or by default.

    Returns:
        None if none are known.
    """
    scope, _, name = kind.rpartition('.')
    if name in _BY_NAME:
        weights = _of_model(f'{_BY_NAME[name]}/{value_of("model_name")}')
        # mmengine reads no names of timm; its wrapper takes `pretrained` instead.
        return UsualWeights(weights) if weights and scope == 'mmdet_backbones' else None
    source = 'mmdet' if scope in ('', 'mmdet') else 'mmpretrain'
    for entry in load_source(source).entries.values():
        config = dict(entry.config)
        same = str(config.pop('type')).rpartition('.')[2] == name
        reading = {k: v for k, v in config.items() if k in _READING}
        net = {k: v for k, v in config.items() if k not in _READING}
        if (
            same
            and entry.weights
            and all(_same(value_of(k), v) for k, v in net.items())
        ):
            prefix = 'backbone.' if scope == 'mmpretrain' else None
            return UsualWeights(entry.weights, prefix, reading)
    return None


def _of_model(name: str) -> str | None:
    try:
        return find(name).weights
    except UserError:
        return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(one) == list(other)
    return one == other
