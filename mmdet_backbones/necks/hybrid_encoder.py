"""The hybrid encoder of RT-DETR: attention on one level, convolutions between all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS

_BN: dict[str, Any] = dict(type='BN')
_SILU: dict[str, Any] = dict(type='SiLU')
# Positions have a sine and a cosine for each of two axes.
_PER_POSITION = 4


@MODELS.register_module()
class HybridEncoder(BaseModule):
    """Efficient hybrid encoder of RT-DETR, `arXiv 2304.08069
    <https://arxiv.org/abs/2304.08069>`_, sec. 4.2.

    The deepest level attends to itself (AIFI); then all levels are fused from the
    deepest to the shallowest and back (CCFF), through blocks of RepVGG convolutions.
    Made for :class:`~mmdet_backbones.RTDETR`; its outputs, one for each level with
    ``out_channels`` each, suit every detector that takes a pyramid of equal channels,
    mmdet's DINO with ``num_feature_levels=3`` among them.

    Every place of the deepest level attends to every other, padding included: bring
    images to one size, as RT-DETR does, rather than pad them.

    Args:
        in_channels: Channels of each level of the backbone, shallow to deep, at least
            two; each has half the height and width of the one before, rounded up.
        out_channels: Channels of every output and of the attention.
        num_layers: Transformer layers on the deepest level; 0 leaves it as it is.
        num_heads: Of the attention.
        feedforward_channels: Inner channels of its feed-forward layers.
        dropout: In the attention and after it.
        num_blocks: RepVGG blocks in each fusion.
        expansion: Channels inside a fusion by ``out_channels``.
        norm_cfg: Normalisation after every convolution, as mmcv takes it.
        act_cfg: Activation of the fusion, as mmcv takes it.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If arguments are out of range; all mistakes are listed.

    Example:
        >>> neck = HybridEncoder([8, 16, 32], out_channels=16, num_heads=4)
        >>> sizes = ((8, 12, 20), (16, 6, 10), (32, 3, 5))
        >>> [tuple(x.shape[1:]) for x in neck([torch.rand(1, *s) for s in sizes])]
        [(16, 12, 20), (16, 6, 10), (16, 3, 5)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        num_layers: int = 1,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        num_blocks: int = 3,
        expansion: float = 1.0,
        norm_cfg: dict[str, Any] = _BN,
        act_cfg: dict[str, Any] = _SILU,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        given = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        numbers = dict(
            out_channels=out_channels,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            num_blocks=num_blocks,
        )
        _check(given, numbers, num_layers, dropout, expansion)
        super().__init__(init_cfg=init_cfg)
        self.in_channels: list[int] = given
        self.out_channels = out_channels
        conv: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.input_proj = nn.ModuleList(
            ConvModule(channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
            for channels in given
        )
        self.encoder = _attention(
            num_layers, out_channels, num_heads, feedforward_channels, dropout
        )
        inside = round(out_channels * expansion)
        # From the deepest level up, as they are used.
        self.lateral_convs = nn.ModuleList()
        self.fpn_blocks = nn.ModuleList()
        self.downsample_convs = nn.ModuleList()
        self.pan_blocks = nn.ModuleList()
        for _ in given[1:]:
            width = out_channels
            self.lateral_convs.append(ConvModule(width, width, 1, **conv))
            self.fpn_blocks.append(FusionBlock(width, inside, num_blocks, **conv))
            self.downsample_convs.append(
                ConvModule(width, width, 3, stride=2, padding=1, **conv)
            )
            self.pan_blocks.append(FusionBlock(width, inside, num_blocks, **conv))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Encode the levels of the backbone.

        Args:
            inputs: One (N, C, H, W) per entry of ``in_channels``, shallow to deep.

        Returns:
            (N, out_channels, H, W) for each of them.

        Raises:
            ValueError: If the levels are not those of ``in_channels``.
        """
        found = [] if isinstance(inputs, Tensor) else [x.shape[1] for x in inputs]
        if found != self.in_channels:
            raise ValueError(
                f'HybridEncoder has in_channels={self.in_channels}, the backbone gives '
                f'{found or "a bare tensor"}: write neck=dict(in_channels='
                f'{found or "[...]"}) or other levels in the backbone'
            )
        levels = [conv(x) for conv, x in zip(self.input_proj, inputs, strict=True)]
        levels[-1] = self._attend(levels[-1])
        return self._bottom_up(self._top_down(levels))

    def _attend(self, level: Tensor) -> Tensor:
        if self.encoder is None:
            return level
        height, width = level.shape[2:]
        tokens = self.encoder(
            level.flatten(2).transpose(1, 2),
            query_pos=encode_places(height, width, self.out_channels, like=level),
            key_padding_mask=None,
        )
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def _top_down(self, levels: Sequence[Tensor]) -> list[Tensor]:
        fused = [levels[-1]]
        for level, lateral, block in zip(
            levels[-2::-1], self.lateral_convs, self.fpn_blocks, strict=True
        ):
            fused[0] = lateral(fused[0])
            above = functional.interpolate(fused[0], size=level.shape[2:])
            fused.insert(0, block(torch.cat((above, level), 1)))
        return fused

    def _bottom_up(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        fused = [levels[0]]
        for level, downsample, block in zip(
            levels[1:], self.downsample_convs, self.pan_blocks, strict=True
        ):
            fused.append(block(torch.cat((downsample(fused[-1]), level), 1)))
        return tuple(fused)


class FusionBlock(nn.Module):
    """Two maps made into one, sec. 4.2, fig. 5: a row of RepVGG blocks and a bypass.

    Args:
        channels: Of each map and of the output.
        inside: Of the blocks.
        num_blocks: Their number.
        norm_cfg: As mmcv takes it.
        act_cfg: The same.
    """

    def __init__(
        self,
        channels: int,
        inside: int,
        num_blocks: int,
        norm_cfg: dict[str, Any],
        act_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        conv: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv1 = ConvModule(2 * channels, inside, 1, **conv)
        self.conv2 = ConvModule(2 * channels, inside, 1, **conv)
        self.bottlenecks = nn.Sequential(
            *(RepVGGBlock(inside, **conv) for _ in range(num_blocks))
        )
        self.conv3: nn.Module = nn.Identity()
        if inside != channels:
            self.conv3 = ConvModule(inside, channels, 1, **conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2 * channels, H, W) to (N, channels, H, W)."""
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side (arXiv 2101.03697, without identity).

    Args:
        channels: Of input and output.
        norm_cfg: As mmcv takes it.
        act_cfg: The same, after the sum.
    """

    def __init__(
        self, channels: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        conv: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=None)
        self.conv1 = ConvModule(channels, channels, 3, padding=1, **conv)
        self.conv2 = ConvModule(channels, channels, 1, **conv)
        self.activate = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.activate(self.conv1(x) + self.conv2(x))


def encode_places(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of the row and column of each place.

    Args:
        height: Of the map.
        width: Of the map.
        channels: Of the result, a multiple of 4.
        like: Its device and dtype are those of the result.

    Returns:
        (1, height * width, channels), row by row: a quarter each of sines and cosines
        of the row, then of the column.
    """
    count = channels // _PER_POSITION
    # Half precision has no digits left for the places of a large map.
    exact: dict[str, Any] = dict(dtype=torch.float32, device=like.device)
    frequencies = 10000.0 ** -(torch.arange(count, **exact) / count)
    rows = torch.arange(height, **exact)[:, None] * frequencies
    columns = torch.arange(width, **exact)[:, None] * frequencies
    rows = rows[:, None].expand(height, width, count)
    columns = columns[None].expand(height, width, count)
    parts = (rows.sin(), rows.cos(), columns.sin(), columns.cos())
    return torch.cat(parts, -1).flatten(0, 1)[None].to(like.dtype)


def _attention(
    num_layers: int, channels: int, heads: int, inner: int, dropout: float
) -> nn.Module | None:
    if not num_layers:
        return None
    # Importing all of mmdet's models takes seconds, and the registry imports this
    # module for every backbone.
    from mmdet.models.layers import DetrTransformerEncoder

    layer = dict(
        self_attn_cfg=dict(
            embed_dims=channels,
            num_heads=heads,
            attn_drop=dropout,
            proj_drop=dropout,
        ),
        ffn_cfg=dict(
            embed_dims=channels,
            feedforward_channels=inner,
            ffn_drop=dropout,
            act_cfg=dict(type='GELU'),
        ),
    )
    return DetrTransformerEncoder(num_layers, layer)


def _check(
    in_channels: list[int],
    numbers: dict[str, int],
    num_layers: int,
    dropout: float,
    expansion: float,
) -> None:
    problems = []
    if len(in_channels) < 2 or any(type(c) is not int or c < 1 for c in in_channels):
        problems.append(
            'in_channels must be positive integers, one for each of at least two '
            f'levels of the backbone, got {in_channels}'
        )
    problems += [
        f'{name} must be a positive integer, got {value!r}'
        for name, value in numbers.items()
        if type(value) is not int or value < 1
    ]
    if type(num_layers) is not int or num_layers < 0:
        problems.append(f'num_layers must be an integer from 0, got {num_layers!r}')
    if not 0 <= dropout < 1:
        problems.append(f'dropout must be from 0 to below 1, got {dropout!r}')
    if not problems and round(numbers['out_channels'] * expansion) < 1:
        problems.append(f'expansion must be above 0, got {expansion!r}')
    if not problems and num_layers:
        width, heads = numbers['out_channels'], numbers['num_heads']
        step = math.lcm(_PER_POSITION, heads)
        if width % step:
            problems.append(
                f'out_channels must be a multiple of {_PER_POSITION} and of '
                f'num_heads={heads}, got {width}: write out_channels='
                f'{-(-width // step) * step}'
            )
    if problems:
        raise ValueError(f'HybridEncoder: {"; ".join(problems)}')
