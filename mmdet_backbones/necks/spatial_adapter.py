"""A pyramid from a plain ViT and a convolutional branch that looks at the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, cat, nn
from torch.nn import functional

from ..levels import Level
from ..registry import MODELS
from .simple_feature_pyramid import USUAL_CHANNELS

STRIDES = (4, 8, 16, 32)
_LAYER_NORM: dict[str, Any] = dict(type='mmdet_backbones.LN2d', eps=1e-6)
_GELU: dict[str, Any] = dict(type='GELU')


@MODELS.register_module()
class SpatialAdapter(BaseModule):
    """Merge a plain ViT's map with details that convolutions find in the image.

    A patch of 16 pixels hides what is smaller. As in the spatial prior module of
    ViT-Adapter (`arXiv 2205.08534 <https://arxiv.org/abs/2205.08534>`_), a light branch
    of 3x3 convolutions of stride 2 makes maps of the image. As in the spatial tuning
    adapter of DEIMv2 (`arXiv 2509.20787 <https://arxiv.org/abs/2509.20787>`_), the ViT
    is left as it is, and at every stride its map, resampled, and that of the branch are
    joined by a 1x1 convolution. A 3x3 convolution follows, as in ViTDet's pyramid; each
    has normalisation.

    The backbone hands the image on with ``out_image=True``.

    Args:
        in_channels: Channels of the image and of the ViT's map; or of the image and of
            as many maps as there are ``strides``, of blocks that are merged from the
            finest to the coarsest.
        out_channels: Channels of every output.
        num_outs: Number of outputs. Those beyond ``strides`` are every second pixel of
            the one before, as in Faster R-CNN's FPN.
        strides: Of the outputs, each twice the one before, among 4, 8, 16 and 32,
            whatever the patch size.
        in_stride: Stride of the ViT's maps, its patch size.
        width: Channels of the branch at stride 4; twice as many at 8, four times from
            16 on.
        norm_cfg: Normalisation as mmcv takes it; layer normalisation over channels
            if left out.
        act_cfg: Activation in the branch; GELU if left out.
        init_cfg: As in mmengine.

    Attributes:
        out_strides: Stride of each output.

    Raises:
        ValueError: If arguments are out of range; all mistakes are listed.

    Example:
        >>> neck = SpatialAdapter(in_channels=(3, 192))
        >>> inputs = torch.rand(1, 3, 96, 160), torch.rand(1, 192, 6, 10)
        >>> [tuple(x.shape[2:]) for x in neck(inputs)]
        [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = USUAL_CHANNELS,
        num_outs: int = 5,
        strides: Sequence[int] = STRIDES,
        in_stride: int = 16,
        width: int = 32,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        numbers = dict(out_channels=out_channels, in_stride=in_stride, width=width)
        _check(in_channels, num_outs, strides, numbers)
        super().__init__(init_cfg=init_cfg)
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.strides = tuple(strides)
        self.in_stride = in_stride
        added = (strides[-1] * 2**n for n in range(1, num_outs - len(strides) + 1))
        self.out_strides = (*self.strides, *added)
        norm: dict[str, Any] = dict(norm_cfg=norm_cfg or _LAYER_NORM)
        act: dict[str, Any] = dict(act_cfg=act_cfg or _GELU)
        half: dict[str, Any] = dict(stride=2, padding=1, **norm, **act)
        image, *maps = in_channels
        self.stem = ConvModule(image, width, 3, **half)
        self.branch = nn.ModuleList()
        channels = width
        for stride in STRIDES[: STRIDES.index(strides[-1]) + 1]:
            wider = width * min(stride // 4, 4)
            self.branch.append(ConvModule(channels, wider, 3, **half))
            channels = wider
        self.merge_convs, self.out_convs = nn.ModuleList(), nn.ModuleList()
        for number, stride in enumerate(strides):
            joined = width * min(stride // 4, 4) + maps[number if maps[1:] else 0]
            merge = ConvModule(joined, out_channels, 1, act_cfg=None, **norm)
            self.merge_convs.append(merge)
            self.out_convs.append(
                ConvModule(
                    out_channels, out_channels, 3, padding=1, act_cfg=None, **norm
                )
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the image and the ViT's maps to ``num_outs`` maps, fine to coarse.

        Args:
            inputs: The image (N, C, H, W) and as many maps (N, C, ceil(H / in_stride),
                ceil(W / in_stride)) as ``in_channels`` names.

        Returns:
            (N, out_channels, ceil(H / stride), ceil(W / stride)) for each stride.

        Raises:
            ValueError: If the inputs are not those of ``in_channels``.
        """
        image, *maps = self._checked(inputs)
        x = self.stem(image)
        details = dict.fromkeys(self.strides, x)
        for stride, conv in zip(STRIDES, self.branch, strict=False):
            x = conv(x)
            if stride in details:
                details[stride] = x
        outputs = []
        for number, (stride, detail) in enumerate(details.items()):
            seen = self._resampled(maps[number if maps[1:] else 0], stride, detail)
            merged = self.merge_convs[number](cat([detail, seen], 1))
            outputs.append(self.out_convs[number](merged))
        while len(outputs) < self.num_outs:
            outputs.append(functional.max_pool2d(outputs[-1], 1, stride=2))
        return tuple(outputs)

    def _resampled(self, x: Tensor, stride: int, like: Tensor) -> Tensor:
        """Bring a map of the ViT to a stride, pixel on pixel, of the size of another.

        By the ratio of the strides, not by that of the sizes: both maps reach beyond
        the image, by other lengths.
        """
        size = like.shape[-2:]
        if stride == self.in_stride:
            return x
        scale = self.in_stride / stride
        bottom, right = (
            max(math.ceil(wanted / scale) - given, 0)
            for wanted, given in zip(size, x.shape[-2:], strict=True)
        )
        if bottom or right:
            x = functional.pad(x, (0, right, 0, bottom), mode='replicate')
        x = functional.interpolate(
            x, scale_factor=scale, mode='bilinear', align_corners=False
        )
        return x[..., : size[0], : size[1]]

    def _checked(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        found = [] if isinstance(inputs, Tensor) else [x.shape[1] for x in inputs]
        if found == self.in_channels:
            return inputs
        given = f'{found or "a bare tensor"}'
        if found == self.in_channels[1:]:
            cure = 'backbone=dict(out_image=True), so that the image comes first'
        else:
            cure = f'neck=dict(in_channels={found or "[...]"}), the image first'
        raise ValueError(
            f'SpatialAdapter has in_channels={self.in_channels}, the backbone gives '
            f'{given}: write {cure}'
        )


def adapter_neck(
    level: Level, aims: Sequence[float], out_channels: int | None = None
) -> dict[str, Any]:
    """Configure a spatial adapter for RGB images.

    Args:
        level: The one map.
        aims: Strides of the maps that are wanted, each twice the one before; it makes
            as many.
        out_channels: Of its maps, 256 if left out.
    """
    first = min(STRIDES, key=lambda stride: abs(stride - aims[0]))
    strides = STRIDES[STRIDES.index(first) :][: len(aims)]
    return dict(
        type='mmdet_backbones.SpatialAdapter',
        in_channels=[3, level.channels],
        out_channels=out_channels or USUAL_CHANNELS,
        num_outs=len(aims),
        strides=strides,
        in_stride=level.stride,
    )


def _check(
    in_channels: Sequence[int],
    num_outs: int,
    strides: Sequence[int],
    numbers: dict[str, int],
) -> None:
    problems = []
    channels = [] if isinstance(in_channels, int) else list(in_channels)
    if len(channels) not in (2, 1 + len(strides)):
        last = channels[-1] if channels else in_channels
        problems.append(
            'in_channels must name the image and one map of the ViT, or one for each '
            f'of the strides, got {in_channels!r}: write in_channels={[3, last]}'
        )
    elif any(type(c) is not int or c < 1 for c in channels):
        problems.append(f'in_channels must be positive integers, got {in_channels!r}')
    problems += [
        f'{name} must be a positive integer, got {value!r}'
        for name, value in numbers.items()
        if type(value) is not int or value < 1
    ]
    given = tuple(strides)
    starts = [n for n, stride in enumerate(STRIDES) if given[:1] == (stride,)]
    if not starts or STRIDES[starts[0] : starts[0] + len(given)] != given:
        problems.append(
            f'strides must be neighbours among {STRIDES}, ascending, got {given}: '
            f'write strides={STRIDES}'
        )
    if type(num_outs) is not int or num_outs < len(given):
        problems.append(
            'num_outs must be an integer not below the number of strides, '
            f'{len(given)}, got {num_outs!r}'
        )
    if problems:
        raise ValueError(f'SpatialAdapter: {"; ".join(problems)}')
