"""The neck that makes maps of several strides from the one map of a plain ViT."""

from __future__ import annotations

import math
from typing import Any

from ..levels import Level
from ..necks.simple_feature_pyramid import SCALES
from .neck_rules import Strides

_CHANNELS = 256


def pyramid_neck(
    level: Level, aims: Strides, out_channels: int | None = None
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
        out_channels=out_channels or _CHANNELS,
        num_outs=len(aims),
        scale_factors=tuple(scales[: len(aims)]),
        in_stride=level.stride,
    )
