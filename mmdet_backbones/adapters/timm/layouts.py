"""The layouts of other programs that timm reads into its nets."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import timm
from torch import Tensor, nn

from ...shapes.build import on_meta
from ...weights.names.dialect import Dialect
from ...weights.names.libraries import through_timm
from .nets import Options, for_whole


def official_layouts(model_name: str, options: Options) -> tuple[Dialect, ...]:
    """Dialects of a net in which timm itself would read files of other programs.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.

    Returns:
        One dialect for each function of the model's module that converts checkpoints.
    """
    name = model_name.partition('.')[0]
    return tuple(
        through_timm(partial(_convert, function, name, options))
        for function in _functions(name)
    )


def _functions(name: str) -> list[str]:
    """Names of the functions that convert checkpoints of a model."""
    module = sys.modules[timm.model_entrypoint(name).__module__]
    return [
        key
        for key, value in vars(module).items()
        if 'filter' in key
        and inspect.isfunction(value)
        and next(iter(inspect.signature(value).parameters), '') == 'state_dict'
    ]


def _convert(
    function: str, name: str, options: Options, state_dict: dict[str, Tensor]
) -> Mapping[str, Tensor]:
    module = sys.modules[timm.model_entrypoint(name).__module__]
    convert: Callable[..., Mapping[str, Tensor]] = vars(module)[function]
    parameters = inspect.signature(convert).parameters
    arguments: dict[str, Any] = {}
    if 'model' in parameters:
        arguments['model'] = _plain(name, options)
    if 'adapt_layer_scale' in parameters:
        # Of DeiT-III; no other file has the names that it renames.
        arguments['adapt_layer_scale'] = True
    return convert(state_dict, **arguments)


@lru_cache(maxsize=4)
def _plain(name: str, options: Options) -> nn.Module:
    return on_meta(lambda: timm.create_model(name, **for_whole(options)))
