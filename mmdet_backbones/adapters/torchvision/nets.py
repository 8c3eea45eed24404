"""torchvision's classification nets: built, changed, and freed of their image size."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.maxvit import PartitionAttentionLayer
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

from ...backbones.frozen_norm import FrozenBN
from ...errors import ArgumentError
from ...levels import Preprocess
from ...shapes.build import on_default_device
from ...shapes.structure import replace_part
from ..inputs import pad_to_multiple, set_in_channels

# Without the classifiers in the middle of these nets, which no feature map needs, and
# without their change of the image's mean and standard deviation: `preprocess` says
# what their weights, ported from TensorFlow, expect.
_INCEPTION = ('googlenet', 'inception_v3')
_INCEPTION_ARGUMENTS = dict(aux_logits=False, transform_input=False, init_weights=False)
_HALF = Preprocess((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


# What torchvision's classes take, by the module they stand in.
_DILATED: dict[str, dict[int, dict[str, Any]]] = {
    'resnet': {
        stride: dict(
            replace_stride_with_dilation=tuple(s > stride for s in (8, 16, 32))
        )
        for stride in (4, 8, 16)
    },
    'mobilenetv3': {16: dict(dilated=True)},
}
# Of blocks that torchvision does not dilate.
_BASIC = ('resnet18', 'resnet34')


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


def dilation(model_name: str, output_stride: int | None, owner: str) -> dict[str, Any]:
    """Arguments that build a net of this largest stride, dilated beyond.

    Raises:
        ValueError: If torchvision's class cannot be built so.
    """
    if output_stride is None:
        return {}
    family = models.get_model_builder(model_name).__module__.rpartition('.')[2]
    choices = {} if model_name in _BASIC else _DILATED.get(family, {})
    if output_stride in choices:
        return choices[output_stride]
    last = list(choices)[-1] if choices else None
    allowed = ' or '.join(map(str, choices)) or 'None: its class cannot be dilated'
    raise ArgumentError(
        f'{owner}: output_stride must be {allowed}, got {output_stride!r}: '
        + (f'write output_stride={last} or ' if last else '')
        + 'leave output_stride out',
        dict(output_stride=last),
    )


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
        replace_part(net, name, FrozenBN.of(layer))


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


def free_size(net: nn.Module) -> None:
    """Make a net take images of any size.

    Parameters and their names stay, and so do the numbers at the size the class was
    built for.

    Args:
        net: A net of torchvision, changed in place if it is a ViT or a MaxViT.
    """
    for module in net.modules():
        if type(module) in _FREED:
            module.__class__ = _FREED[type(module)]


class AnySizeVisionTransformer(VisionTransformer):
    """torchvision's ViT for images of any size.

    Images are padded with zeros at the right and the bottom to whole patches, and the
    position embedding is interpolated to their grid (bicubic).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, classes), like the class it stands for."""
        encoder: Any = self.encoder
        grid = self.conv_proj(_whole_patches(x, self.patch_size))
        tokens = _to_tokens(grid, self.class_token, encoder.pos_embedding)
        tokens = encoder.ln(encoder.layers(encoder.dropout(tokens)))
        return self.heads(tokens[:, 0])


@torch.fx.wrap
def _whole_patches(x: Tensor, patch_size: int) -> Tensor:
    return pad_to_multiple(x, patch_size)


@torch.fx.wrap
def _to_tokens(grid: Tensor, class_token: Tensor, position: Tensor) -> Tensor:
    """Turn (N, C, H, W) into (N, 1 + H * W, C), the class token first."""
    patches = grid.flatten(2).permute(0, 2, 1)
    tokens = torch.cat([class_token.expand(len(patches), -1, -1), patches], dim=1)
    return tokens + _fit_position(position, grid.shape[2], grid.shape[3])


def _fit_position(position: Tensor, height: int, width: int) -> Tensor:
    side = math.isqrt(position.shape[1] - 1)
    if (side, side) == (height, width):
        return position
    square = position[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    fitted = functional.interpolate(square, size=(height, width), mode='bicubic')
    return torch.cat([position[:, :1], fitted.flatten(2).permute(0, 2, 1)], dim=1)


def tokens_to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """Drop the class token of (N, 1 + H * W, C), lay the rest out as (N, C, H, W)."""
    return tokens[:, 1:].permute(0, 2, 1).unflatten(2, (height, width))


class AnySizePartitionAttention(PartitionAttentionLayer):
    """MaxViT's attention for maps of any size.

    Maps are padded with zeros to whole windows and cut back afterwards, as Swin does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        side = self.p if self.partition_type == 'window' else self.g
        padded = pad_to_multiple(x, side)
        batch, channels, height, width = padded.shape
        rows, columns = height // side, width // side
        if self.partition_type == 'window':
            split, order = (rows, side, columns, side), (0, 2, 4, 3, 5, 1)
            back = (0, 5, 1, 3, 2, 4)
        else:
            # Tokens of one group lie a whole row or column of windows apart.
            split, order = (side, rows, side, columns), (0, 3, 5, 2, 4, 1)
            back = (0, 5, 3, 1, 4, 2)
        groups = padded.reshape(batch, channels, *split).permute(order)
        tokens = groups.reshape(batch, rows * columns, side * side, channels)
        tokens = tokens + self.stochastic_dropout(self.attn_layer(tokens))
        tokens = tokens + self.stochastic_dropout(self.mlp_layer(tokens))
        tokens = tokens.reshape(groups.shape).permute(back)
        whole = tokens.reshape(batch, channels, height, width)
        return whole[..., : x.shape[2], : x.shape[3]]


_FREED: dict[type[nn.Module], type[nn.Module]] = {
    VisionTransformer: AnySizeVisionTransformer,
    PartitionAttentionLayer: AnySizePartitionAttention,
}
