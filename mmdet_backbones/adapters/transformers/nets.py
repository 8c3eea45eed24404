"""transformers' nets, built from the dicts of their configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.utils import digit_version
from torch import Tensor, nn

from ...errors import ArgumentError
from ...shapes.build import on_default_device
from ..inputs import set_in_channels
from ..structure import RefusedError, one_line
from .hooks import make_picklable
from .local_files import read_config
from .published import PUBLISHED

_OLDEST = '4.49'
_INSTALL = f'  pip install "transformers>={_OLDEST},<6"'


def check_library() -> None:
    """Raise an ``ImportError`` with what to type unless transformers can be used."""
    if find_spec('transformers') is None:
        raise ImportError(
            f"transformers' nets need transformers, which is not installed: write\n"
            f'{_INSTALL}'
        )
    installed = version('transformers')
    if digit_version(installed) < digit_version(_OLDEST):
        raise ImportError(
            f"transformers' nets need transformers >= {_OLDEST}, found {installed}: "
            f'write\n{_INSTALL}'
        )


check_library()
try:
    from transformers import CONFIG_MAPPING, AutoBackbone
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_BACKBONE_MAPPING_NAMES,
    )
except Exception as error:  # whatever its import raises
    raise ImportError(
        f'Importing transformers failed ({one_line(error)}): write\n{_INSTALL}'
    ) from error

ARCHITECTURES: tuple[str, ...] = tuple(MODEL_FOR_BACKBONE_MAPPING_NAMES)

# Of the backbone, by the names that stand in configs.
_OUTSIDE = {
    'num_channels': 'in_channels',
    'out_features': 'out_indices',
    'out_indices': 'out_indices',
}
# What says how a class returns its outputs, and of which type its numbers are.
_IGNORED = (
    'architectures', 'dtype', 'output_attentions', 'output_hidden_states',
    'return_dict', 'torch_dtype', 'transformers_version', 'use_return_dict',
)  # fmt: skip
_NO_BACKBONES = {
    'timm_backbone': "write type='mmdet_backbones.TIMMBackbone', model_name=... "
    'instead, which reads the same weights',
}
# A net and a text encoder in one config, of which the net is wanted.
_PART_OF = {'tipsv2': ('tipsv2_vision_model', 'vision_config')}


@dataclass(frozen=True)
class NetSpec:
    """What net to build.

    Attributes:
        owner: What messages call the backbone.
        kind: Architecture, a name of :data:`ARCHITECTURES`.
        settings: Arguments of its config class, as JSON.
        in_channels: Channels of the image.
    """

    owner: str
    kind: str
    settings: str
    in_channels: int = 3

    @cached_property
    def count(self) -> int:
        """Number of outputs that the class knows, the stem included."""
        return len(configuration(self, None).stage_names)


def make_spec(
    owner: str,
    model: str | Mapping[str, Any],
    in_channels: int,
    drop_path_rate: float | None,
) -> NetSpec:
    """Find the config that is meant and check it.

    Args:
        owner: What messages call the backbone.
        model: A name or a path, see :func:`resolve`, or a dict as in ``config.json``.
        in_channels: Channels of the image.
        drop_path_rate: Rate of stochastic depth, None for that of the config.

    Raises:
        TypeError: If the config class does not know one of the entries.
        ValueError: If there is no such net, or it is no backbone.
    """
    if type(in_channels) is not int or in_channels < 1:
        raise ValueError(
            f'{owner}: in_channels must be a positive integer, got {in_channels!r}'
        )
    given = resolve(owner, model) if isinstance(model, str) else dict(model)
    kind = given.pop('model_type')
    if kind in _PART_OF:
        kind, part = _PART_OF[kind]
        given = dict(given.get(part) or {})
        given.pop('model_type', None)
    if kind not in ARCHITECTURES:
        near = get_close_matches(kind, ARCHITECTURES, n=3)
        hint = f'did you mean {" or ".join(near)}?' if near else 'it has '
        raise ValueError(
            f'{owner}: AutoBackbone of transformers {version("transformers")} has no '
            f"'{kind}': {hint}{'' if near else ', '.join(ARCHITECTURES)}"
        )
    if kind in _NO_BACKBONES:
        raise RefusedError(f'{owner} cannot be a backbone: {_NO_BACKBONES[kind]}')
    if isinstance(model, str):
        given = {k: v for k, v in given.items() if k not in (*_OUTSIDE, *_IGNORED)}
    else:
        _check_entries(owner, kind, given)
    if drop_path_rate is not None:
        _check_drop_path(owner, kind, drop_path_rate)
        given['drop_path_rate'] = drop_path_rate
    return NetSpec(owner, kind, json.dumps(given, sort_keys=True), in_channels)


def resolve(owner: str, model: str) -> dict[str, Any]:
    """Find the config of a name; the network is not asked.

    Args:
        owner: What messages call the backbone.
        model: The hub's name of a published net, the name of an architecture, which
            means its default config, or what :func:`.local_files.read_config` takes.

    Returns:
        The entries of the config, ``model_type`` among them.

    Raises:
        ValueError: If nothing is known of the name.
    """
    if model in PUBLISHED:
        return dict(PUBLISHED[model])
    if model in ARCHITECTURES:
        return dict(model_type=model)
    found = read_config(model)
    if found is not None and isinstance(found.get('model_type'), str):
        return found
    if found is not None:
        raise ValueError(f"{owner}: config.json of '{model}' has no model_type")
    near = get_close_matches(model, (*PUBLISHED, *ARCHITECTURES), n=3)
    hint = f'did you mean {" or ".join(near)}? ' if near else ''
    raise ValueError(
        f"{owner}: nothing is known of '{model}': it is no name of the table of this "
        f"package, no path, and not in the hub's cache on this machine. {hint}Write "
        'the path of a folder with its config.json, or what stands in that file: '
        "model=dict(model_type='convnext', depths=[3, 3, 9, 3])"
    )


def _check_entries(owner: str, kind: str, given: Mapping[str, Any]) -> None:
    outside = [name for name in _OUTSIDE if name in given]
    if outside:
        beside = ', '.join(f'{_OUTSIDE[name]}=...' for name in outside)
        raise ArgumentError(
            f'{owner}: {", ".join(outside)} cannot stand inside model: these belong to '
            f'the backbone. Write {beside} beside it',
            dict(
                model={'model_type': kind}
                | {k: v for k, v in given.items() if k not in outside}
            ),
        )
    default = CONFIG_MAPPING[kind]()
    unknown = [k for k in given if k in _IGNORED or not hasattr(default, k)]
    if unknown:
        names = [n for n in default.to_dict() if n not in (*_IGNORED, *_OUTSIDE)]
        near = [n for key in unknown for n in get_close_matches(key, names, n=2)]
        hint = f'did you mean {" or ".join(near)}?' if near else 'leave it out'
        raise TypeError(
            f"{owner}: the config of transformers' {kind} has no "
            f'{", ".join(unknown)}: {hint}'
        )


def _check_drop_path(owner: str, kind: str, rate: float) -> None:
    if not hasattr(CONFIG_MAPPING[kind](), 'drop_path_rate'):
        raise ArgumentError(
            f'{owner} has no stochastic depth: leave drop_path_rate out',
            dict(drop_path_rate=None),
        )
    if type(rate) not in (int, float) or not 0 <= rate < 1:
        raise ArgumentError(
            f'{owner}: drop_path_rate must be a number from 0 to below 1, got '
            f'{rate!r}: write drop_path_rate=0.1',
            dict(drop_path_rate=0.1),
        )


def configuration(spec: NetSpec, indices: Sequence[int] | None) -> Any:
    """Make the config of a net that gives the outputs of these numbers.

    Raises:
        ValueError: If its class does not take a value.
    """
    arguments = json.loads(spec.settings)
    if indices is not None:
        arguments['out_indices'] = list(indices)
    try:
        config = CONFIG_MAPPING[spec.kind](**arguments)
    except Exception as error:  # classes check their values in many ways
        raise ValueError(
            f"{spec.owner}: the config of transformers' {spec.kind} does not take "
            f'{json.loads(spec.settings)}: {one_line(error)}'
        ) from error
    # Defaults are tuples, what is read from a file is lists, and ConvNeXt and FocalNet
    # can be built from lists only.
    for name, value in list(vars(config).items()):
        if isinstance(value, tuple):
            setattr(config, name, list(value))
    if hasattr(config, 'num_channels'):
        config.num_channels = spec.in_channels
    return config


def build(spec: NetSpec, indices: Sequence[int]) -> nn.Module:
    """Build a net with the outputs of these numbers.

    Raises:
        ValueError: If its class cannot be built here.
    """
    config = configuration(spec, indices)
    try:
        net: nn.Module = on_default_device(lambda: AutoBackbone.from_config(config))
    except ImportError as error:
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: {one_line(error)}'
        ) from error
    except Exception as error:  # classes check their arguments in many ways
        raise ValueError(
            f"{spec.owner}: transformers' {spec.kind} cannot be built from "
            f'{json.loads(spec.settings)}: {one_line(error)}'
        ) from error
    if not hasattr(config, 'num_channels'):
        set_in_channels(net, spec.in_channels, spec.owner)
    if spec.kind == 'hiera':
        from .hiera import AnySizeHiera

        net.__class__ = AnySizeHiera
    make_picklable(net)
    return net


def maps_of(net: Any, x: Tensor) -> list[Tensor]:
    """Run a net and return its maps.

    Raises:
        RefusedError: If they are not maps of four dimensions.
    """
    outputs = net.forward(x).feature_maps
    shapes = [tuple(output.shape) for output in outputs if output.dim() != 4]
    if shapes:
        raise RefusedError(
            f'{type(net).__name__} cannot be a backbone: it gives tensors of the '
            f'shapes {", ".join(map(str, dict.fromkeys(shapes)))} and no maps '
            '(N, C, H, W)'
        )
    return list(outputs)


def whole(spec: NetSpec, indices: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Tensors of a net with these outputs, nothing dropped, without values."""
    with torch.device('meta'):
        return build(spec, indices).state_dict()
