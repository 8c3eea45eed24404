"""A feature pyramid that fuses its levels by sum or by average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS

FUSE_TYPES = ('sum', 'avg')
EXTRA_SOURCES = ('on_input', 'on_lateral', 'on_output')
_NEAREST: dict[str, Any] = dict(mode='nearest')
_XAVIER: dict[str, Any] = dict(type='Xavier', layer='Conv2d', distribution='uniform')


@MODELS.register_module()
class FPN(BaseModule):
    """Feature pyramid network of `arXiv 1612.03144 <https://arxiv.org/abs/1612.03144>`_,
    sec. 3, with the ``fuse_type`` of detectron2's class.

    Arguments and parameter names are those of mmdet's FPN, and so are the outputs, to
    the last bit, for ``fuse_type='sum'``: a config changes the type only, and
    checkpoints load. ``'avg'`` halves every sum of a lateral and the map above it, so
    that the size of the values does not grow on the way down.

    Args:
        in_channels: Channels of each level of the backbone, shallow to deep; an integer
            for one level.
        out_channels: Channels of every output.
        num_outs: Number of outputs.
        start_level: First level of the backbone that is used.
        end_level: Last level that is used, itself included; -1 for the last one
            there is. With any other no levels can be added on top.
        add_extra_convs: How outputs beyond the levels are made. False: every second
            pixel of the last one, as in Faster R-CNN. ``'on_input'`` (or True),
            ``'on_lateral'`` or ``'on_output'``: 3x3 convolutions of stride 2 on the
            last level of the backbone, the last lateral or the last output.
        relu_before_extra_convs: ReLU before the added convolutions but the first.
        no_norm_on_lateral: Leave ``norm_cfg`` out of the lateral convolutions.
        fuse_type: ``'sum'`` as in the paper, or ``'avg'``.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Normalisation after every convolution, as mmcv takes it.
        act_cfg: Activation after every convolution, as mmcv takes it.
        upsample_cfg: For ``torch.nn.functional.interpolate``. Without
            ``scale_factor`` maps get the size of the lateral.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If arguments are out of range; all mistakes are listed.

    Example:
        >>> neck = FPN([8, 16, 32], out_channels=4, num_outs=4, fuse_type='avg')
        >>> sizes = ((8, 12, 20), (16, 6, 10), (32, 3, 5))
        >>> [tuple(x.shape[2:]) for x in neck([torch.rand(1, *s) for s in sizes])]
        [(12, 20), (6, 10), (3, 5), (2, 3)]
    """

    in_channels: list[int]
    num_outs: int
    start_level: int
    backbone_end_level: int
    add_extra_convs: bool | str
    relu_before_extra_convs: bool
    upsample_cfg: dict[str, Any]
    lateral_convs: nn.ModuleList
    fpn_convs: nn.ModuleList

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        fuse_type: str = 'sum',
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        upsample_cfg: Mapping[str, Any] = _NEAREST,
        init_cfg: dict | list[dict] | None = _XAVIER,
    ) -> None:
        given = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        problems = [
            *_channel_problems(given, out_channels),
            *_level_problems(len(given), num_outs, start_level, end_level),
            *_choice_problems(fuse_type, add_extra_convs),
        ]
        if problems:
            raise ValueError(f'FPN: {"; ".join(problems)}')
        super().__init__()
        # Importing all of mmdet's models takes seconds, and the registry imports this
        # module for every backbone: no class here can derive from mmdet's.
        from mmdet.models import necks

        neck = necks.FPN(
            given,
            out_channels,
            num_outs,
            start_level=start_level,
            end_level=end_level,
            add_extra_convs=add_extra_convs,
            relu_before_extra_convs=relu_before_extra_convs,
            no_norm_on_lateral=no_norm_on_lateral,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            upsample_cfg=dict(upsample_cfg),
            init_cfg=init_cfg,
        )
        # Its layers and settings become those of this module, under the same names.
        self.__dict__.update(neck.__dict__)
        self.fuse_type = fuse_type

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the levels of the backbone to ``num_outs`` maps, fine to coarse.

        Args:
            inputs: One (N, C, H, W) per entry of ``in_channels``.

        Returns:
            (N, out_channels, H, W) for each used level; each added one has half the
            height and width of the one before, rounded up.

        Raises:
            ValueError: If the levels are not those of ``in_channels``.
        """
        found = [] if isinstance(inputs, Tensor) else [x.shape[1] for x in inputs]
        if found != self.in_channels:
            raise ValueError(
                f'FPN has in_channels={self.in_channels}, the backbone gives '
                f'{found or "a bare tensor"}: write neck=dict(in_channels='
                f'{found or "[...]"}) or other levels in the backbone'
            )
        laterals = [
            conv(inputs[self.start_level + number])
            for number, conv in enumerate(self.lateral_convs)
        ]
        used = len(laterals)
        for number in range(used - 1, 0, -1):
            laterals[number - 1] = self._fuse(laterals[number - 1], laterals[number])
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        deepest = inputs[self.backbone_end_level - 1], laterals[-1], outputs[-1]
        sources: dict[Any, Tensor] = dict(zip(EXTRA_SOURCES, deepest, strict=True))
        for number, conv in enumerate(list(self.fpn_convs)[used:]):
            x = outputs[-1] if number else sources[self.add_extra_convs]
            relu = number and self.relu_before_extra_convs
            outputs.append(conv(functional.relu(x) if relu else x))
        while len(outputs) < self.num_outs:
            outputs.append(functional.max_pool2d(outputs[-1], 1, stride=2))
        return tuple(outputs)

    def _fuse(self, lateral: Tensor, above: Tensor) -> Tensor:
        options = dict(self.upsample_cfg)
        if 'scale_factor' not in options:
            options['size'] = lateral.shape[2:]
        total = lateral + functional.interpolate(above, **options)
        return total / 2 if self.fuse_type == 'avg' else total


def _channel_problems(in_channels: Sequence[int], out_channels: int) -> list[str]:
    problems = []
    if not in_channels or any(type(c) is not int or c < 1 for c in in_channels):
        problems.append(
            'in_channels must be positive integers, one per level of the backbone, '
            f'got {in_channels!r}'
        )
    if type(out_channels) is not int or out_channels < 1:
        problems.append(
            f'out_channels must be a positive integer, got {out_channels!r}'
        )
    return problems


def _level_problems(levels: int, num_outs: int, start: int, end: int) -> list[str]:
    if not 0 <= start < levels:
        return [f'start_level must be from 0 to {levels - 1}, got {start!r}']
    if end != -1 and not start <= end < levels:
        return [f'end_level must be -1 or from {start} to {levels - 1}, got {end!r}']
    used = (levels if end == -1 else end + 1) - start
    if end in (-1, levels - 1):
        if num_outs < used:
            return [
                f'num_outs must not be below the {used} levels that are used, got '
                f'{num_outs!r}: write num_outs={used} or start_level='
                f'{levels - max(num_outs, 1)}'
            ]
    elif num_outs != used:
        return [
            f'num_outs must be {used}, the number of levels from start_level={start} '
            f'to end_level={end}, got {num_outs!r}'
        ]
    return []


def _choice_problems(fuse_type: str, add_extra_convs: bool | str) -> list[str]:
    problems = []
    if fuse_type not in FUSE_TYPES:
        problems.append(
            f'fuse_type must be {" or ".join(map(repr, FUSE_TYPES))}, got {fuse_type!r}'
        )
    if type(add_extra_convs) is not bool and add_extra_convs not in EXTRA_SOURCES:
        problems.append(
            'add_extra_convs must be True, False or one of '
            f'{EXTRA_SOURCES}, got {add_extra_convs!r}'
        )
    return problems
