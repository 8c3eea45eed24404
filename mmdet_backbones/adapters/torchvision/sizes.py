"""Nets of torchvision that insist on one image size, freed of it.

Parameters and their names stay, and so do the numbers at the size the class was built
for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.maxvit import PartitionAttentionLayer
from torchvision.models.vision_transformer import VisionTransformer

from ..inputs import pad_to_multiple


def free_size(net: nn.Module) -> None:
    """Make a net take images of any size.

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
