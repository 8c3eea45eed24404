"""One map for detectors without a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class SingleLevel(BaseModule):
    """Pass on one level of the backbone, projected to other channels if asked.

    For detectors that work on one map: Faster R-CNN C4 and DC5, DETR, YOLOF. mmdet's
    ``ChannelMapper`` projects every level it is given, mmdet's C4 and DC5 configs have
    no neck and heads as wide as ResNet's last stage.

    Let the backbone return nothing deeper than the level that is used, or the stages
    above it have parameters without a gradient, which DistributedDataParallel
    refuses.

    Args:
        in_channels: Channels of each level of the backbone; an integer for one level.
        out_channels: Channels of the output. None passes the level on as it is, and
            the neck has no parameters.
        index: Which level, counted as Python counts; the last one if left out.
        norm_cfg: Normalisation after the 1x1 convolution, as mmcv takes it.
        act_cfg: Activation after it, as mmcv takes it.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If arguments are out of range or have no effect; all mistakes are
            listed.

    Example:
        >>> neck = SingleLevel([512, 1024], out_channels=256)
        >>> levels = torch.rand(1, 512, 12, 20), torch.rand(1, 1024, 6, 10)
        >>> [tuple(x.shape) for x in neck(levels)]
        [(1, 256, 6, 10)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int | None = None,
        index: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        given = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        _check(given, out_channels, index, dict(norm_cfg=norm_cfg, act_cfg=act_cfg))
        super().__init__(init_cfg=init_cfg)
        self.in_channels = given
        self.index = index
        self.out_channels = given[index] if out_channels is None else out_channels
        self.conv: nn.Module = nn.Identity()
        if out_channels is not None:
            self.conv = ConvModule(
                given[index], out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Map the backbone's outputs to one (N, out_channels, H, W).

        Args:
            inputs: As many (N, C, H, W) as ``in_channels`` names.

        Returns:
            The map of level ``index``.

        Raises:
            ValueError: If the levels are not those of ``in_channels``.
        """
        bare = isinstance(inputs, Tensor)
        found = [] if bare else [x.shape[1] for x in inputs]
        if found != self.in_channels:
            raise ValueError(
                f'SingleLevel has in_channels={self.in_channels}, the backbone gives '
                f'{"a bare tensor" if bare else f"levels of {found} channels"}: write '
                f'neck=dict(in_channels={found or "[...]"}) or other out_indices in '
                'the backbone'
            )
        return (self.conv(inputs[self.index]),)


def _check(
    in_channels: list[int],
    out_channels: int | None,
    index: int,
    after: dict[str, dict[str, Any] | None],
) -> None:
    count = len(in_channels)
    problems = []
    if not in_channels or any(type(c) is not int or c < 1 for c in in_channels):
        problems.append(
            f'in_channels must be positive integers, one per level, got {in_channels}'
        )
    elif type(index) is not int or not -count <= index < count:
        problems.append(
            f'index must be an integer from {-count} to {count - 1} for {count} '
            f'levels, got {index!r}'
        )
    if out_channels is None:
        problems += [
            f'{name} has no effect without out_channels: write out_channels=256 or '
            f'leave {name} out'
            for name, cfg in after.items()
            if cfg is not None
        ]
    elif type(out_channels) is not int or out_channels < 1:
        problems.append(
            f'out_channels must be a positive integer or None, got {out_channels!r}'
        )
    if problems:
        raise ValueError(f'SingleLevel: {"; ".join(problems)}')
