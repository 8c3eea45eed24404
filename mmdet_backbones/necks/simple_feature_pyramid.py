"""A feature pyramid from the one map of a plain ViT (ViTDet)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule, build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..levels import Level
from ..registry import MODELS

SCALES = (4, 2, 1, 0.5)
USUAL_CHANNELS = 256


@MODELS.register_module(name='LN2d')
class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of every pixel of (N, C, H, W).

    Args:
        num_channels: C.
        eps: Added to the variance.
    """

    # mmdet's ViTDet project calls its layers so, and its checkpoints load here.
    _abbr_ = 'norm_layer'

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        pixels = input.permute(0, 2, 3, 1)
        normalised = functional.layer_norm(
            pixels, self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normalised.permute(0, 3, 1, 2)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Simple feature pyramid of ViTDet, `arXiv 2203.16527
    <https://arxiv.org/abs/2203.16527>`_, sec. 3 and A.1.

    One map of a plain backbone becomes maps of several scales: two transposed
    convolutions with normalisation and activation between for 4, one for 2, nothing
    for 1, max pooling for 0.5. A 1x1 and a 3x3 convolution, each with normalisation,
    follow at every scale. Parameter names are those of ``SimpleFPN`` in mmdet's
    ViTDet project, so detectors trained with it load.

    Args:
        in_channels: Channels of the backbone's map, an integer or a sequence of one.
        out_channels: Channels of every output.
        num_outs: Number of outputs. Those beyond ``scale_factors`` are every second
            pixel of the one before, as in Faster R-CNN's FPN.
        scale_factors: Descending, among 4, 2, 1 and 0.5. For detectors with strides
            8, 16 and 32 write ``scale_factors=(2, 1, 0.5), num_outs=3``.
        in_stride: Stride of the backbone's map, its patch size. With 14 (DINOv2) the
            outputs have the strides 3.5, 7, 14, 28 and 56, and so must the head:
            mmdet's anchor generators, point generators and RoI extractors take
            fractions. Maps are not resampled, because a padded image's map has no
            exact size at other strides.
        norm_cfg: Normalisation as mmcv takes it; layer normalisation over channels
            if left out.
        act_cfg: Activation between the transposed convolutions; GELU if left out.
        init_cfg: As in mmengine.

    Attributes:
        out_strides: Stride of each output, integers where they are whole.

    Raises:
        ValueError: If arguments are out of range; all mistakes are listed.

    Example:
        >>> neck = SimpleFeaturePyramid(in_channels=192)
        >>> [tuple(x.shape[2:]) for x in neck((torch.rand(1, 192, 6, 10),))]
        [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        scale_factors: Sequence[float] = SCALES,
        in_stride: int = 16,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        given = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        _check(given, out_channels, num_outs, scale_factors, in_stride)
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type='mmdet_backbones.LN2d', eps=1e-6)
        act_cfg = act_cfg or dict(type='GELU')
        self.in_channels: int = given[0]
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.scale_factors = tuple(scale_factors)
        self.out_strides = _strides(in_stride, self.scale_factors, num_outs)
        self.lateral_convs = nn.ModuleList()
        self.fpn_convs = nn.ModuleList()
        for scale in self.scale_factors:
            name = f'fpn{SCALES.index(scale) + 1}'
            channels, layers = _resize(scale, self.in_channels, norm_cfg, act_cfg)
            self.add_module(name, nn.Sequential(*layers))
            conv: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=None)
            self.lateral_convs.append(ConvModule(channels, out_channels, 1, **conv))
            self.fpn_convs.append(
                ConvModule(out_channels, out_channels, 3, padding=1, **conv)
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map one (N, in_channels, H, W) to ``num_outs`` maps, fine to coarse.

        Args:
            inputs: The outputs of the backbone, exactly one.

        Returns:
            (N, out_channels, H * scale, W * scale) for each scale, rounded up.

        Raises:
            ValueError: If there is not exactly one input with the right channels.
        """
        outputs = []
        x = self._only(inputs)
        for number, scale in enumerate(self.scale_factors):
            resized = getattr(self, f'fpn{SCALES.index(scale) + 1}')(x)
            outputs.append(self.fpn_convs[number](self.lateral_convs[number](resized)))
        while len(outputs) < self.num_outs:
            outputs.append(functional.max_pool2d(outputs[-1], 1, stride=2))
        return tuple(outputs)

    def _only(self, inputs: Sequence[Tensor]) -> Tensor:
        if isinstance(inputs, Tensor) or len(inputs) != 1:
            count = 'a bare tensor' if isinstance(inputs, Tensor) else len(inputs)
            last = 0 if isinstance(inputs, Tensor) else len(inputs) - 1
            raise ValueError(
                'SimpleFeaturePyramid takes a sequence of one level of the backbone, '
                f'got {count}: write out_indices=({last},) in the backbone if it '
                'returns all of its levels now, or else the number of its last one'
            )
        channels = inputs[0].shape[1]
        if channels != self.in_channels:
            raise ValueError(
                f'SimpleFeaturePyramid has in_channels={self.in_channels}, the '
                f'backbone gives {channels}: write neck=dict(in_channels={channels})'
            )
        return inputs[0]


def pyramid_neck(
    level: Level, aims: Sequence[float], out_channels: int | None = None
) -> dict[str, Any]:
    """Configure a simple feature pyramid.

    Args:
        level: The one map.
        aims: Strides of the maps that are wanted; it makes as many, of the nearest
            strides that it can.
        out_channels: Of its maps, 256 if left out.
    """
    exponents = [round(math.log2(level.stride / stride)) for stride in aims]
    scales = [s for s in SCALES if math.log2(s) in exponents] or [1]
    return dict(
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=level.channels,
        out_channels=out_channels or USUAL_CHANNELS,
        num_outs=len(aims),
        scale_factors=tuple(scales[: len(aims)]),
        in_stride=level.stride,
    )


def _resize(
    scale: float, channels: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]
) -> tuple[int, list[nn.Module]]:
    """Channels after resizing by ``scale``, and the layers that do it."""
    if scale == 1:
        return channels, []
    if scale == 0.5:
        # Rounding up keeps the last row of a map of odd height.
        return channels, [nn.MaxPool2d(2, stride=2, ceil_mode=True)]
    half = channels // 2
    layers: list[nn.Module] = [nn.ConvTranspose2d(channels, half, 2, stride=2)]
    if scale == 2:
        return half, layers
    layers.append(build_norm_layer(norm_cfg, half)[1])
    layers.append(build_activation_layer(act_cfg))
    layers.append(nn.ConvTranspose2d(half, half // 2, 2, stride=2))
    return half // 2, layers


def _strides(
    in_stride: int, scales: Sequence[float], num_outs: int
) -> tuple[float, ...]:
    strides = [in_stride / scale for scale in scales]
    while len(strides) < num_outs:
        strides.append(2 * strides[-1])
    return tuple(int(s) if s.is_integer() else s for s in strides)


def _check(
    in_channels: list[int],
    out_channels: int,
    num_outs: int,
    scales: Sequence[float],
    in_stride: int,
) -> None:
    problems = []
    factor = max(1, int(max([s for s in scales if s in SCALES], default=1)))
    if len(in_channels) != 1:
        problems.append(
            f'in_channels must name one level, got {in_channels}: write in_channels='
            f'{in_channels[-1] if in_channels else 768} and let the backbone return '
            'that level only'
        )
    elif type(in_channels[0]) is not int or in_channels[0] < 1:
        problems.append(
            f'in_channels must be a positive integer, got {in_channels[0]!r}'
        )
    elif in_channels[0] % factor:
        problems.append(
            f'in_channels must be a multiple of {factor} for '
            f'scale_factors={tuple(scales)}, got {in_channels[0]}'
        )
    for name, value in (('out_channels', out_channels), ('in_stride', in_stride)):
        if type(value) is not int or value < 1:
            problems.append(f'{name} must be a positive integer, got {value!r}')
    allowed = [scale for scale in SCALES if scale in scales]
    if not scales or list(scales) != allowed:
        problems.append(
            f'scale_factors must be descending and among {SCALES}, got {tuple(scales)}'
        )
    if type(num_outs) is not int or num_outs < len(scales):
        problems.append(
            'num_outs must be an integer not below the number of scale_factors, '
            f'{len(scales)}, got {num_outs!r}'
        )
    if problems:
        raise ValueError(f'SimpleFeaturePyramid: {"; ".join(problems)}')
