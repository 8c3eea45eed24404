"""torchvision's classification nets: how to build one, its blocks and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torchvision
from torch import fx, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from ...backbones.checkpointing import checkpoint_blocks
from ...backbones.frozen_norm import FrozenBN
from ...levels import Preprocess
from ...shapes.build import on_default_device
from ..inputs import set_in_channels
from .graph import extract
from .sizes import free_size

# Without the classifiers in the middle of these nets, which no feature map needs, and
# without their change of the image's mean and standard deviation: `preprocess` says
# what their weights, ported from TensorFlow, expect.
_INCEPTION = ('googlenet', 'inception_v3')
_INCEPTION_ARGUMENTS = dict(aux_logits=False, transform_input=False, init_weights=False)
_HALF = Preprocess((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))

# Classes whose activations are recomputed as a whole, by the names torchvision gives
# them. AlexNet and VGG have none.
_BLOCKS = frozenset(
    {
        'BasicBlock',
        'Bottleneck',
        'CNBlock',
        'EncoderBlock',
        'Fire',
        'FusedMBConv',
        'Inception',
        'InceptionA',
        'InceptionB',
        'InceptionC',
        'InceptionD',
        'InceptionE',
        'InvertedResidual',
        'MaxVitLayer',
        'MBConv',
        'ResBottleneckBlock',
        'SwinTransformerBlock',
        'SwinTransformerBlockV2',
        '_DenseLayer',
        '_InvertedResidual',
    }
)


def list_models() -> list[str]:
    """Names of all classification nets of the installed torchvision."""
    return models.list_models(module=models)


def check_name(model_name: str) -> None:
    """Raise a ``ValueError`` with the nearest names if there is no such net."""
    names = list_models()
    if model_name in names:
        return
    near = get_close_matches(str(model_name), names, n=3)
    hint = (
        f'did you mean {" or ".join(near)}?'
        if near
        else 'torchvision.models.list_models(module=torchvision.models) names all'
    )
    raise ValueError(
        f'torchvision {torchvision.__version__} has no classification model '
        f"'{model_name}'; {hint}"
    )


def build(model_name: str, **arguments: Any) -> nn.Module:
    """Build a net with new weights that takes images of any size.

    Args:
        model_name: As in ``torchvision.models.get_model``.
        **arguments: For the net's constructor.
    """
    if model_name in _INCEPTION:
        arguments = {**_INCEPTION_ARGUMENTS, **arguments}
    net: nn.Module = on_default_device(
        lambda: models.get_model(model_name, weights=None, **arguments)
    )
    free_size(net)
    return net


def adapt(
    net: nn.Module,
    in_channels: int,
    drop_path_rate: float | None,
    norm_layer: str | None,
    owner: str,
) -> None:
    """Change a whole net in place, as the arguments of the backbone say.

    Args:
        net: From :func:`build`.
        in_channels: Channels of the image.
        drop_path_rate: Largest rate of stochastic depth, or None.
        norm_layer: ``'FrozenBN'`` or None.
        owner: Name of the backbone, for messages.

    Raises:
        ValueError: If the net has no use for one of them, or its value is wrong.
    """
    set_in_channels(net, in_channels, owner)
    if drop_path_rate is not None:
        _set_drop_path_rate(net, drop_path_rate, owner)
    if norm_layer is not None:
        _set_norm_layer(net, norm_layer, owner)


def _set_drop_path_rate(net: nn.Module, rate: float, owner: str) -> None:
    """Scale the rates of stochastic depth so that the largest one is ``rate``."""
    if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ValueError(
            f'{owner}: drop_path_rate must be a number from 0 to below 1, got {rate!r}'
        )
    layers = [m for m in net.modules() if isinstance(m, StochasticDepth)]
    if not layers:
        raise ValueError(
            f'{owner} has no stochastic depth (ConvNeXt, EfficientNet, MaxViT and Swin '
            'have): leave drop_path_rate out'
        )
    largest = max(layer.p for layer in layers)
    for layer in layers:
        layer.p *= rate / largest


def _set_norm_layer(net: nn.Module, norm_layer: str, owner: str) -> None:
    """Put :class:`FrozenBN` in the place of every batch normalisation."""
    if norm_layer != 'FrozenBN':
        raise ValueError(
            f"{owner}: norm_layer must be 'FrozenBN' or None, got {norm_layer!r}"
        )
    layers = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    if not layers:
        raise ValueError(f'{owner} has no batch normalisation: leave norm_layer out')
    for name, layer in layers:
        parent, _, leaf = name.rpartition('.')
        # Under the same device as the layer, so that a net on meta stays there.
        with layer.running_mean.device:  # type: ignore[union-attr]
            frozen = FrozenBN(layer.num_features, layer.eps)
        setattr(net.get_submodule(parent), leaf, frozen)


def extract_with_blocks(
    net: nn.Module, nodes: Sequence[str], with_cp: bool, owner: str
) -> fx.GraphModule:
    """Cut a net down to what some nodes need, and checkpoint its blocks if asked to.

    Args:
        net: From :func:`build`.
        nodes: Names of nodes of the net.
        with_cp: Whether blocks recompute their activations in backward.
        owner: Name of the backbone, for messages.

    Raises:
        ValueError: If there are no blocks to checkpoint, or a node lies inside one.
    """
    if not with_cp:
        return extract(net, nodes)
    types = {type(module) for module in net.modules()}
    kinds = tuple(t for t in types if t.__name__ in _BLOCKS)
    try:
        body = extract(net, nodes, kinds)
    except KeyError as error:
        raise ValueError(
            f'{owner}: return_nodes: {error} lies inside a block, which with_cp=True '
            'recomputes as a whole: write with_cp=False or the name of the block'
        ) from error
    called = [str(node.target) for node in body.graph.nodes if node.op == 'call_module']
    blocks = [
        block for name in called if isinstance(block := body.get_submodule(name), kinds)
    ]
    if not blocks:
        raise ValueError(f'{owner} has no blocks to recompute: leave with_cp out')
    checkpoint_blocks(blocks)
    return body


def preprocess(model_name: str) -> Preprocess:
    """Mean and standard deviation that torchvision's weights expect, in RGB.

    Those of GoogLeNet and Inception v3 take images from -1 to 1. torchvision hides
    this: its classes turn ImageNet's normalisation into that one by themselves.
    """
    if model_name in _INCEPTION:
        return _HALF
    weights: Any = models.get_model_weights(model_name)
    transforms = weights.DEFAULT.transforms()
    mean, std = (
        tuple(round(255 * value, 3) for value in values)
        for values in (transforms.mean, transforms.std)
    )
    return Preprocess(mean, std)
