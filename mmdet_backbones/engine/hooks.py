"""Hooks for mmengine's Runner."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole detector in channels-last memory format.

    Convolutions of (N, C, H, W) maps then read neighbouring channels from
    neighbouring addresses, which is faster for most nets; results are the same up
    to rounding. Use it as
    ``custom_hooks = [dict(type='mmdet_backbones.ChannelsLastHook')]``.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Convert the weights; every convolution after them keeps the format."""
        runner.model.to(memory_format=torch.channels_last)
