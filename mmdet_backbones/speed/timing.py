"""Speed, size and memory of backbones, side by side in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..catalog.entries import find
from ..errors import UserError
from .memory import peak_memory
from .nets import PreparedNet, Settings, build_net, count_flops

_WARM_UP = 3


@dataclass(frozen=True)
class Measured:
    """What was measured of one backbone, or of the detector with it.

    Attributes:
        name: Of the backbone.
        parameters: Of the whole net.
        gflops: Of one image, convolutions and matrix products; a multiply-add counts
            as two operations. With ``train`` of forward and backward.
        latency_ms: Median of the rounds for one batch, in milliseconds.
        latency_low_ms: First quartile of the rounds.
        latency_high_ms: Third quartile of the rounds.
        images_per_second: At the median.
        peak_memory_mib: See :func:`~mmdet_backbones.speed.memory
            .peak_memory`, in MiB.
    """

    name: str
    parameters: int
    gflops: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    images_per_second: float
    peak_memory_mib: float

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)


def count_steps(names: Sequence[str], settings: Settings) -> int:
    """How often :func:`benchmark` reports that it got further."""
    return len(names) * (settings.rounds + 3)


def benchmark(
    names: Sequence[str],
    settings: Settings,
    advance: Callable[[str], None] = lambda doing: None,
) -> list[Measured]:
    """Measure backbones.

    Each round runs every net once, each round in another order, so that a machine that
    gets slower or busier meets all of them alike. Memory is measured before that, one
    process for each net.

    Args:
        names: Of backbones of the catalog.
        settings: How they are run.
        advance: Told what comes next, :func:`count_steps` times in all.

    Returns:
        One entry per name, in their order.

    Raises:
        UserError: With everything that is wrong.
    """
    _check(names, settings)
    nets = _build(names, settings, advance)
    flops = [count_flops(net, settings) for net in nets]
    memory = []
    for name in names:
        advance(f'memory of {name}')
        memory.append(peak_memory(name, settings))
    times = time_rounds(nets, settings, advance)
    return [
        _summary(*found, settings.batch)
        for found in zip(nets, flops, memory, times, strict=True)
    ]


def _build(
    names: Sequence[str], settings: Settings, advance: Callable[[str], None]
) -> list[PreparedNet]:
    nets: list[PreparedNet] = []
    problems: list[str] = []
    for name in names:
        advance(f'building {name}')
        try:
            nets.append(build_net(name, settings))
        except UserError as error:
            problems.append(str(error))
    _raise(problems)
    return nets


def _check(names: Sequence[str], settings: Settings) -> None:
    problems = settings.problems()
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        problems.append(f'named twice: {", ".join(twice)}')
    if not names:
        problems.append('name at least one backbone, such as timm/resnet18')
    for name in dict.fromkeys(names):
        try:
            find(name)
        except UserError as error:
            problems.append(str(error))
    _raise(problems)


def _raise(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        lines = ''.join(f'\n  - {problem}' for problem in problems)
        raise UserError(f'{len(problems)} things are wrong:{lines}')


def time_rounds(
    nets: Sequence[PreparedNet],
    settings: Settings,
    advance: Callable[[str], None] = lambda doing: None,
) -> list[list[float]]:
    """Time nets in turn.

    Args:
        nets: What to run.
        settings: How.
        advance: As for :func:`benchmark`.

    Returns:
        Seconds of each round, a list per net.
    """
    for net in nets:
        advance(f'warming up {net.name}')
        for _ in range(_WARM_UP):
            net.step()
    times: list[list[float]] = [[] for _ in nets]
    for number in range(settings.rounds):
        # Whoever follows a large net finds cold caches; not always the same one.
        for place in range(len(nets)):
            index = (place + number) % len(nets)
            advance(f'round {number + 1}: {nets[index].name}')
            times[index].append(_time(nets[index], settings.device))
    return times


def _time(net: PreparedNet, device: str) -> float:
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    net.step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _summary(
    net: PreparedNet, flops: int, memory: int, times: Sequence[float], batch: int
) -> Measured:
    median = statistics.median(times)
    low = high = median
    if len(times) > 1:
        low, _, high = statistics.quantiles(times, n=4, method='inclusive')
    return Measured(
        name=net.name,
        parameters=net.parameters,
        gflops=round(flops / 1e9, 4),
        latency_ms=round(1e3 * median, 3),
        latency_low_ms=round(1e3 * low, 3),
        latency_high_ms=round(1e3 * high, 3),
        images_per_second=round(batch / median, 2),
        peak_memory_mib=round(memory / 2**20, 1),
    )
