"""Channels-last memory format where it is faster, which a short trial decides."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..errors import UserError
from ..registry import HOOKS
from ..shapes.build import fixed_size

FORMATS = {
    'contiguous': torch.contiguous_format,
    'channels_last': torch.channels_last,
}
_SIZE = (256, 256)
_ROUNDS = 3
_NONE = object()


@dataclass(frozen=True)
class FormatTrial:
    """What :func:`try_formats` measured.

    Attributes:
        size: Height and width of the image in pixels.
        seconds: Median time of a pass by name of the format.
        precision: That the passes ran in.
    """

    size: tuple[int, int]
    seconds: dict[str, float]
    precision: str = 'float32'

    @property
    def faster(self) -> str:
        """Name of the format with the shorter time."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    def __str__(self) -> str:
        """Say what was measured and what follows, in one line."""
        times = ', '.join(f'{n} {1000 * s:.0f} ms' for n, s in self.seconds.items())
        return (
            f'Memory format {self.faster}: a pass over the backbone with one image of '
            f'{self.size[0]} x {self.size[1]} in {self.precision} takes {times} '
            f'(medians of {_ROUNDS})'
        )


def try_formats(
    backbone: nn.Module, training: bool, dtype: torch.dtype | None = None
) -> FormatTrial:
    """Time a backbone in both memory formats.

    The two take turns, so that a machine that is busy meanwhile slows both. Weights,
    statistics and random numbers stay as they are: copies run.

    Args:
        backbone: Maps (N, C, H, W) to one tensor or several.
        training: Whether a pass is forward and backward, or forward alone.
        dtype: Of autocast, or None to run without.

    Returns:
        The times.
    """
    device = next(backbone.parameters()).device
    size = fixed_size(backbone) or _SIZE
    image = torch.zeros(1, _channels(backbone), *size, device=device)
    passes = {}
    for name, memory_format in FORMATS.items():
        net: Any = copy.deepcopy(backbone).to(memory_format=memory_format)
        net.train(training)
        formatted = image.contiguous(memory_format=memory_format)
        passes[name] = _pass(net, formatted, dtype)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    with torch.random.fork_rng(), torch.set_grad_enabled(training):
        for number in range(_ROUNDS + 1):
            for name, run in passes.items():
                taken = _time(run, device)
                if number:  # the first pass of each warms up
                    seconds[name].append(taken)
    medians = {n: statistics.median(s) for n, s in seconds.items()}
    return FormatTrial(size, medians, _name(dtype, device))


def _name(dtype: torch.dtype | None, device: torch.device) -> str:
    if dtype is not None:
        return str(dtype).removeprefix('torch.')
    # What cuDNN rounds to in convolutions, unless somebody forbade it.
    rounds = device.type == 'cuda' and torch.backends.cudnn.allow_tf32
    return 'TF32' if rounds else 'float32'


def _channels(backbone: nn.Module) -> int:
    kernels = (p for p in backbone.parameters() if p.dim() == 4)
    first = next(kernels, None)
    return 3 if first is None else first.shape[1]


def _pass(
    net: nn.Module, image: Tensor, dtype: torch.dtype | None
) -> Callable[[], None]:
    precision = torch.autocast(image.device.type, dtype, enabled=dtype is not None)

    def run() -> None:
        with precision:
            outputs = net(image)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        # None of a frozen net.
        means = [output.float().mean() for output in outputs if output.requires_grad]
        if means:
            net.zero_grad(set_to_none=True)
            torch.stack(means).sum().backward()

    return run


def _time(run: Callable[[], None], device: torch.device) -> float:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole detector in channels-last memory format where that is faster.

    Convolutions of (N, C, H, W) maps then read neighbouring channels from
    neighbouring addresses, which is faster for most nets, and slower for some with
    grouped convolutions; results are the same up to rounding. What is timed runs in the
    precision of the run. Use it as
    ``custom_hooks = [dict(type='mmdet_backbones.ChannelsLastHook')]``.

    Args:
        measure: Time the backbone in both formats before the run, and leave the
            detector as it is if channels-last is slower; the first process decides
            for all. False converts without asking.

    Raises:
        UserError: A ``ValueError`` before the run, if there is no backbone to time.
    """

    priority = 'VERY_HIGH'

    def __init__(self, measure: bool = True) -> None:
        self.measure = measure
        self._decided = False

    def before_train(self, runner: Runner) -> None:
        """Decide for training, and convert the weights."""
        self._convert(runner, training=True)

    def before_val(self, runner: Runner) -> None:
        """Decide for a validation without training, and convert the weights."""
        self._convert(runner, training=False)

    def before_test(self, runner: Runner) -> None:
        """Decide for a test, and convert the weights."""
        self._convert(runner, training=False)

    def _convert(self, runner: Runner, training: bool) -> None:
        if self._decided:
            return
        self._decided = True
        if not self.measure or self._is_faster(runner, training):
            # Every convolution keeps the format that its weights have.
            runner.model.to(memory_format=torch.channels_last)

    def _is_faster(self, runner: Runner, training: bool) -> bool:
        detector = runner.model
        while is_model_wrapper(detector) or isinstance(detector, BaseTTAModel):
            detector = detector.module
        backbone = getattr(detector, 'backbone', None)
        if backbone is None or isinstance(runner.model, FullyShardedDataParallel):
            raise UserError(
                'ChannelsLastHook times detector.backbone, and there is none in one '
                'piece: write measure=False to convert the detector without asking'
            )
        decided = [False]
        if is_main_process():
            trial = try_formats(backbone, training, _precision(runner, training))
            runner.logger.info(str(trial))
            decided = [trial.faster == 'channels_last']
        broadcast_object_list(decided)
        return decided[0]


def _precision(runner: Runner, training: bool) -> torch.dtype | None:
    """What autocast will be asked for, if it will be."""
    if training:
        wrapper = getattr(runner, 'optim_wrapper', None)
        # Of AmpOptimWrapper and its kin; None is what autocast takes by itself.
        given: Any = getattr(wrapper, 'cast_dtype', _NONE)
        return None if given is _NONE else given or torch.float16
    loops = (getattr(runner, name, None) for name in ('_val_loop', '_test_loop'))
    return torch.float16 if any(getattr(loop, 'fp16', 0) for loop in loops) else None
