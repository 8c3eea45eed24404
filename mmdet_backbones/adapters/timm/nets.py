"""timm's nets as feature extractors: built, run, and freed of their image size."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import timm
import torch
from timm.layers import Format, convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from ...backbones.frozen_norm import FrozenBN
from ...levels import map_size
from ...shapes.build import on_default_device, on_meta
from ...shapes.repeated import repeated_shapes
from ...shapes.structure import replace_part
from ...weights.names.dialect import Dialect
from ...weights.names.libraries import through_timm
from ..inputs import fit_map, pad_to_multiple
from ..structure import SizeRule, fit_padding

# Batch normalisation that is put in the place of a net's own after it is built.
FROZEN_BN, SYNC_BN = 'FrozenBN', 'SyncBN'
# What mmcv's names of normalisation stand for.
_OF_MMCV: dict[str, type[nn.Module]] = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'GN': nn.GroupNorm,
    'IN': nn.InstanceNorm2d,
    'IN2d': nn.InstanceNorm2d,
    'LN': nn.LayerNorm,
    'LN2d': nn.LayerNorm,
}
NORM_NAMES = (FROZEN_BN, SYNC_BN, *_OF_MMCV)
Options = tuple[tuple[str, Any], ...]

# Arguments that free a net of a fixed image size, by the names timm's classes use.
_FREEING: tuple[dict[str, Any], ...] = (
    {},
    {'dynamic_img_size': True, 'dynamic_img_pad': True},
    {'dynamic_img_size': True},
    {'strict_img_size': False},
)
# Windows of 7 or 8 at the deepest level, and patches of patches.
_MULTIPLES = (1, 2, 3, 7, 8)


def check_name(model_name: str) -> None:
    """Raise a ``ValueError`` with the nearest names unless timm has the model."""
    if timm.is_model(model_name.split('.')[0]):
        return
    near = get_close_matches(model_name, timm.list_models(), n=3)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(f"timm {timm.__version__} has no model '{model_name}'{hint}")


def build(model_name: str, options: Options, indices: Sequence[int]) -> nn.Module:
    """Build the extractor of some levels, without weights from anywhere.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments; ``norm_layer`` may be one of :data:`NORM_NAMES`.
        indices: Level numbers, ascending.

    Returns:
        Maps (N, C, H, W) to a list of maps, see :func:`features`.
    """
    arguments = _for_timm(model_name, options)
    net: nn.Module = on_default_device(
        lambda: timm.create_model(
            model_name, features_only=True, out_indices=tuple(indices), **arguments
        )
    )
    kind = dict(options).get('norm_layer')
    if kind == SYNC_BN:
        return convert_sync_batchnorm(net)
    return _freeze(net) if kind == FROZEN_BN else net


def _freeze(net: nn.Module) -> nn.Module:
    freeze_batch_norm_2d(net)
    # Of tokens, as in LeViT, which timm's function leaves.
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.BatchNorm1d):
            replace_part(net, name, FrozenBN.of(layer))
    return net


def _for_timm(model_name: str, options: Options) -> dict[str, Any]:
    """Arguments of ``timm.create_model``, without mmcv's names of normalisation."""
    arguments = dict(options)
    kind = arguments.get('norm_layer')
    if kind not in NORM_NAMES:
        return arguments
    del arguments['norm_layer']
    if kind not in _OF_MMCV:
        return arguments
    convolutional = _has_batch_norm(model_name)
    if kind in ('IN', 'IN2d') and not convolutional:
        raise ValueError('it has no batch normalisation that could be replaced')
    names: dict[type[nn.Module], Any] = {
        # Of its own, with the numbers that its weights were trained with.
        nn.BatchNorm2d: None if convolutional else 'batchnorm2d',
        nn.GroupNorm: 'groupnorm',
        nn.InstanceNorm2d: nn.InstanceNorm2d,
        nn.LayerNorm: 'layernorm2d' if convolutional else 'layernorm',
    }
    name = names[_OF_MMCV[kind]]
    return arguments if name is None else {**arguments, 'norm_layer': name}


@lru_cache(maxsize=8)
def _has_batch_norm(model_name: str) -> bool:
    net = on_meta(lambda: timm.create_model(model_name))
    return any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def has_norm(net: nn.Module, name: str) -> bool:
    """Tell whether a net has normalisation of one of mmcv's names."""
    kind = _OF_MMCV.get(name)
    return kind is not None and any(isinstance(m, kind) for m in net.modules())


def for_whole(model_name: str, options: Options) -> dict[str, Any]:
    """Arguments under which timm builds the classifier of the same tensors."""
    arguments = _for_timm(model_name, options)
    # Some classes take it only where they give maps; it makes no tensors.
    arguments.pop('output_stride', None)
    return arguments


def build_on_meta(
    model_name: str, options: Options, indices: Sequence[int]
) -> nn.Module:
    """Build an extractor on the meta device, in eval mode."""
    # In eval mode batch normalisation costs half as much on this device.
    return on_meta(lambda: build(model_name, options, indices)).eval()


def whole(model_name: str) -> dict[str, Tensor]:
    """Tensors of a model as timm itself builds it, without values."""
    return on_meta(lambda: timm.create_model(model_name)).state_dict()


def features(
    net: nn.Module, x: Tensor, multiple: int = 1, strides: Sequence[int] | None = None
) -> list[Tensor]:
    """Run an extractor and bring its maps into the form of the contract.

    Args:
        net: From :func:`build`.
        x: Images (N, C, H, W).
        multiple: Pad H and W to multiples of it.
        strides: Stride of each output, to cut off what the padding added, or to
            surround a map with zeros that convolutions without padding made smaller;
            None leaves the maps as they are.

    Returns:
        One (N, C, ceil(H / stride), ceil(W / stride)) tensor per level.
    """
    outputs = net(pad_to_multiple(x, multiple))
    if getattr(net, 'output_fmt', None) == Format.NHWC:
        outputs = [output.permute(0, 3, 1, 2) for output in outputs]
    if strides is None:
        return list(outputs)
    return [
        fit_map(output, map_size(x.shape[-2:], stride))
        for output, stride in zip(outputs, strides, strict=True)
    ]


def probe(net: nn.Module, in_channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Run an extractor that stands on the meta device."""
    # With gradients, as some nets keep what they compute from a parameter in eval mode:
    # without, EfficientFormer's tables would look as if nothing depended on them.
    with repeated_shapes(), torch.device('meta'):
        return features(net, torch.zeros(2, in_channels, *size))


def strides_of(net: nn.Module) -> list[int]:
    """Strides that timm declares for the maps of an extractor."""
    info: Any = net.feature_info
    return info.reduction()


def free(
    model_name: str, options: Options, in_channels: int, indices: Sequence[int]
) -> tuple[nn.Module, SizeRule]:
    """Find the arguments and the padding under which a net takes any image.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        in_channels: Channels of the image.
        indices: Numbers of the maps of the net.

    Returns:
        The extractor of all maps on the meta device, and what it takes.
    """
    given = dict(options).get('img_size')
    best: tuple[int, nn.Module, SizeRule] | None = None
    for arguments in () if given else _FREEING:
        freeing = tuple(arguments.items())
        try:
            net = build_on_meta(model_name, (*options, *freeing), indices)
        except TypeError:
            continue
        if _is_fixed(net):
            continue
        multiple, aligned = _padding(net, in_channels)
        if aligned and (best is None or aligned > best[0]):
            best = aligned, net, SizeRule(multiple, arguments=freeing)
        if aligned == len(indices):
            break
    if best is not None:
        return best[1:]
    net = build_on_meta(model_name, options, indices)
    declared: Any = net.pretrained_cfg
    height, width = given or declared['input_size'][-2:]
    twice = (*options, ('img_size', (2 * height, 2 * width)))
    if not given and _is_fixed(net) and _is_same(net, model_name, twice, indices):
        multiple, aligned = _padding(net, in_channels)
        if aligned:
            return net, SizeRule(multiple)
    return net, SizeRule(fixed=(height, width))


def _is_fixed(net: nn.Module) -> bool:
    traits: Any = getattr(net, '_traits', {})
    return bool(traits.get('fixed_input_size', False))


def _is_same(
    net: nn.Module, model_name: str, options: Options, indices: Sequence[int]
) -> bool:
    """Tell whether a net is made of the same tensors for images of another size.

    timm declares one size for nets, such as XCiT and Twins, that read it off the image.
    Position tables and windows that follow the size would differ.
    """
    try:
        other = build_on_meta(model_name, options, indices)
    except Exception:  # whatever a class raises that does not take the argument
        return False
    return _shapes(other) == _shapes(net)


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    named = chain(net.named_parameters(), net.named_buffers())
    return {name: tensor.shape for name, tensor in named}


def _padding(net: nn.Module, in_channels: int) -> tuple[int, int]:
    """Find the padding that gives the most levels of whole strides, and how many."""
    strides = strides_of(net)
    deepest = math.ceil(max(strides))
    found = fit_padding(
        partial(probe, net, in_channels),
        (1, *(factor * deepest for factor in _MULTIPLES)),
        strides,
        # Padding mends windows and patches, never convolutions without padding.
        patience=2,
    )
    return (found[0].multiple, len(found[1])) if found is not None else (1, 0)


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
        for function in _converters(name)
    )


def _converters(name: str) -> list[str]:
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
        arguments['model'] = _whole_net(name, options)
    if 'adapt_layer_scale' in parameters:
        # Of DeiT-III; no other file has the names that it renames.
        arguments['adapt_layer_scale'] = True
    return convert(state_dict, **arguments)


@lru_cache(maxsize=4)
def _whole_net(name: str, options: Options) -> nn.Module:
    return on_meta(lambda: timm.create_model(name, **for_whole(name, options)))
