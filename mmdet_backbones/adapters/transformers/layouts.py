"""The names that files of the hub have for the parameters of a net of transformers.

Its classes rename their parts from version to version, and files stay as they were
written. transformers 5 tells which names became which; before, they were the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ...weights.names.dialect import Dialect
from ...weights.names.libraries import HEADS_OF_TRANSFORMERS
from .nets import NetSpec, build


def official_layout(spec: NetSpec) -> Dialect:
    """Return a dialect of all files that transformers itself would read into a net."""
    return Dialect(
        'as transformers converts it',
        marker='',
        heads=HEADS_OF_TRANSFORMERS,
        rewrite=partial(_convert, spec),
    )


def _convert(spec: NetSpec, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a file the names that the net has for them."""
    net = _whole_net(spec)
    known, prefix = net.state_dict().keys(), f'{net.base_model_prefix}.'
    named = {}
    for name, tensor in _renamed(net, state_dict).items():
        # What a file of a classifier has in front of the names of the net inside.
        short = name.removeprefix(prefix)
        spellings = (name, short, prefix + name)
        named[next((n for n in spellings if n in known), short)] = tensor
    return named


def _renamed(net: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if find_spec('transformers.conversion_mapping') is None:
        return dict(state_dict)
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    steps = get_model_conversion_mapping(net, add_legacy=False)
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    renamings = [step for step in steps if not isinstance(step, WeightConverter)]
    renamed: dict[str, Tensor] = {}
    split: dict[str, Any] = {}
    for key, tensor in state_dict.items():
        name = key
        for renaming in renamings:
            name = renaming.rename_source_key(name)[0]
        for converter in converters:
            first, pattern = converter.rename_source_key(name)
            if pattern is not None:
                # Several tensors of a file may go into one of the net, and reverse.
                split.setdefault(first, deepcopy(converter))
                split[first].add_tensor(first, key, pattern, tensor)
                break
        else:
            renamed[name] = tensor
    for first, converter in split.items():
        made = converter.convert(first, model=net, config=net.config)
        for name, tensors in made.items():
            renamed[name] = tensors[0] if isinstance(tensors, list) else tensors
    return renamed


@lru_cache(maxsize=4)
def _whole_net(spec: NetSpec) -> Any:
    with torch.device('meta'):
        return build(spec, (spec.count - 1,))
