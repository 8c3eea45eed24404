"""``param_scheduler`` against the length of the training and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import plain, type_name
from ..engine.recipes import BATCH, is_adaptive
from .annotations import epoch_length
from .findings import Finding, line

# Longer warm-ups leave too little of a training at its full rate.
_LONGEST = 1 / 3
# A schedule whose end is further from that of the training is one of another training.
_FAR = 1.25
# Below it a warm-up has not brought the rate that the optimiser names.
_LOW = 0.5
# Rates of mmdet's configs: SGD for a batch of 16, and AdamW.
_RATES = (0.02, 1e-4)
# Of 1x: the rate falls after 8 and 11 of 12 epochs.
_FALLS = (2 / 3, 11 / 12)
_ETA_MIN = 0.05

Step = dict[str, Any]


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        by_epoch: Whether its loop counts epochs.
        epochs: None if that is not known.
        iterations: None if that is not known.
    """

    by_epoch: bool
    epochs: float | None
    iterations: int | None

    def of(self, step: Mapping[str, Any]) -> float | None:
        """The length in the unit that a scheduler counts in."""
        return self.epochs if step.get('by_epoch', True) else self.iterations


def length_of(config: Mapping[str, Any], num_gpus: int) -> Length | None:
    """Tell how long a training is.

    Args:
        config: All of it.
        num_gpus: Processes that train together.

    Returns:
        None without a loop of mmengine.
    """
    loop = config.get('train_cfg') or {}
    each = epoch_length(config.get('train_dataloader') or {}, num_gpus)
    if loop.get('max_epochs'):
        epochs = int(loop['max_epochs'])
        return Length(True, epochs, epochs * each if each else None)
    if loop.get('max_iters'):
        count = int(loop['max_iters'])
        return Length(False, count / each if each else None, count)
    return None


def check_schedule(detector: DetectorConfig, num_gpus: int = 1) -> Iterator[Finding]:
    """Report rates of zero, and schedules of another training than this one.

    Args:
        detector: The config.
        num_gpus: Processes that will train together.
    """
    config = detector.config
    yield from _no_rate(config)
    given = plain(config.get('param_scheduler') or [])
    steps: list[Step] = [given] if isinstance(given, dict) else list(given)
    length = length_of(config, num_gpus)
    if length is None or not all('type' in step for step in steps):
        return  # a dict of several optimisers' schedules
    key = 'param_scheduler'
    keys = (
        [key] if isinstance(given, dict) else [f'{key}.{i}' for i in range(len(steps))]
    )
    new, severity = deepcopy(steps), 'warning'
    problems = [*_never_stepped(new, length)]
    if problems:
        severity = 'error'
    else:
        low = [*_stays_low(new)]
        severity = 'error' if low else severity
        problems = [*low, *_warm_up(new, length), *_own_end(new, length)]
        problems += _other_length(new, length)
        problems += _rising(new, config)
    if problems:
        lines = [
            line(f'{where}.{name}', value)
            for where, old, step in zip(keys, steps, new, strict=True)
            for name, value in step.items()
            if old.get(name, old) != value
        ]
        text = '; '.join(problems)
        yield Finding('schedule', key, text, tuple(lines), severity)
    yield from _switches(config, length)


def _no_rate(config: Mapping[str, Any]) -> Iterator[Finding]:
    wrapper = plain(config.get('optim_wrapper') or {})
    optimizer = wrapper.get('optimizer') or {}
    if optimizer.get('lr') != 0:
        return
    batch = (config.get('auto_scale_lr') or {}).get('base_batch_size') or BATCH
    ratio = batch / BATCH
    sgd, adam = _RATES
    rate = adam * math.sqrt(ratio) if is_adaptive(wrapper) else sgd * ratio
    key = 'optim_wrapper.optimizer.lr'
    text = (
        'the learning rate is 0, and nothing is learned; mmdet trains with '
        f'{rate:.2g} for a batch of {batch} images'
    )
    yield Finding('schedule', key, text, (line(key, float(f'{rate:.2g}')),))


def _never_stepped(steps: list[Step], length: Length) -> Iterator[str]:
    """Schedulers by epochs in a training that has none."""
    if length.by_epoch or length.iterations is None:
        return
    for step in steps:
        if not step.get('by_epoch', True) or step.get('convert_to_iter_based'):
            continue
        yield (
            f'{type_name(step)} counts epochs (by_epoch is True if it is left out), '
            'and a training by iterations is one epoch: the rate would not change'
        )
        step['by_epoch'] = False
        total, falls = length.iterations, step.get('milestones')
        # Numbers of epochs would all be passed in the first seconds.
        if falls and max(falls) < total / 100:
            step['milestones'] = [round(total * share) for share in _FALLS]
        for name in ('end', 'T_max'):
            if step.get(name) and step[name] < total / 100:
                step[name] = total


def _rises(step: Step) -> tuple[float, float] | None:
    """Factors of the rate at begin and end of a warm-up; None for anything else."""
    kind = type_name(step)
    if kind == 'QuadraticWarmupLR':
        return 0.0, 1.0
    start = step.get('start_factor', 1 / 3)
    if kind == 'LinearLR' and start < 1 and start <= step.get('end_factor', 1.0):
        return start, step.get('end_factor', 1.0)
    factor = step.get('factor', 1 / 3)
    return (factor, 1.0) if kind == 'ConstantLR' and factor < 1 else None


def _stays_low(steps: list[Step]) -> Iterator[str]:
    """A warm-up whose last rate is nearly as low as its first."""
    rising = [step for step in steps if _rises(step)]
    if len(rising) != 1:
        return
    _, last = _rises(rising[0]) or (0.0, 1.0)
    if last < _LOW:
        yield (
            f'{type_name(rising[0])} ends at {last:g} times the learning rate '
            '(end_factor), and nothing raises it after that'
        )
        rising[0]['end_factor'] = 1.0


def _warm_up(steps: list[Step], length: Length) -> Iterator[str]:
    """A warm-up that takes too much of the training."""
    for step in steps:
        factors, total = _rises(step), length.of(step)
        if factors is None or total is None or step.get('begin', 0) > 0:
            continue
        end: float = step.get('end') or total
        unit = 'epochs' if step.get('by_epoch', True) else 'iterations'
        if end <= max(total * _LONGEST, 1):
            continue
        text = f'the warm-up takes {end} {unit}, and the training has {total:g}'
        if end > total:
            first, last = factors
            if type_name(step) == 'LinearLR':
                last = first + (last - first) * total / end
            elif type_name(step) == 'QuadraticWarmupLR':
                last = (total / end) ** 2
            else:
                last = first
            text += f': it ends at {last:.2g} times the learning rate'
        yield text + f'. {_count(total / 10)} are enough'
        for other in steps:
            same = other.get('by_epoch', True) == step.get('by_epoch', True)
            if same and other is not step and other.get('begin') == end:
                other['begin'] = _count(total / 10)
        step['end'] = _count(total / 10)


def _count(value: float) -> int:
    return max(int(value), 1)


def _own_end(steps: list[Step], length: Length) -> Iterator[str]:
    """A scheduler that ends before its rate has fallen, as one of a shorter base."""
    for step in steps:
        begin, end, total = step.get('begin', 0), step.get('end'), length.of(step)
        if not end or total is None or end >= total:
            continue
        late = [m for m in step.get('milestones') or () if begin + m >= end]
        if not late:
            continue
        many = ', '.join(map(str, late))
        yield f'{type_name(step)} ends at {end}, and its rate would fall at {many}'
        step['end'] = int(total)


def _other_length(steps: list[Step], length: Length) -> list[str]:
    """What was written for a longer or a shorter training; it is scaled to this one."""
    problems = []
    for by_epoch in (True, False):
        own = [s for s in steps if s.get('by_epoch', True) == by_epoch]
        total = length.of(dict(by_epoch=by_epoch))
        falling = [s for s in own if not _rises(s)]
        found = [
            text for s in falling if total for text in _misplaced(s, falling, total)
        ]
        if found and total:
            unit = 'epochs' if by_epoch else 'iterations'
            problems += [f'{text} of {total:g} {unit}' for text in found]
            _scale(falling, total)
    return problems


def _misplaced(step: Step, others: list[Step], total: float) -> Iterator[str]:
    """What of a scheduler lies past the end of the training, or far before it."""
    kind, begin = type_name(step), step.get('begin', 0)
    if begin >= total:
        yield f'{kind} begins at {begin}, past the end of the training'
        return
    late = [m for m in step.get('milestones') or () if begin + m >= total]
    if late:
        many = ', '.join(map(str, late))
        yield f'the rate of {kind} would fall at {many}, past the end of the training'
    finish = _finish(step, total)
    if finish is None:
        return
    if finish > total * _FAR:
        yield f'{kind} ends at {finish:g}, far past the end of the training'
    elif kind.startswith('Cosine') and step.get('T_max'):
        until = min(step.get('end') or total, total)
        if until > finish * _FAR:
            yield f'{kind} is through at {finish:g} and rises again in a training'
    after = any(o.get('begin', 0) >= finish and o is not step for o in others)
    if finish * _FAR < total and not after and finish == step.get('end'):
        yield f'{kind} ends at {finish:g}, far before the end of the training'


def _finish(step: Step, total: float) -> float | None:
    """Where a rate that falls evenly is at its lowest; None for other schedulers."""
    kind, begin = type_name(step), step.get('begin', 0)
    if kind == 'CosineAnnealingLR':
        return begin + (step.get('T_max') or (step.get('end') or total) - begin)
    if kind in ('PolyLR', 'LinearLR'):
        return step.get('end') or total
    return None


def _scale(steps: list[Step], total: float) -> None:
    """Write schedulers of one unit for a training of another length."""
    extents = []
    for step in steps:
        begin, falls = step.get('begin', 0), step.get('milestones')
        # The last fall comes a twelfth before the end.
        extents += [step.get('end') or 0, begin + (step.get('T_max') or 0)]
        extents += [round((begin + max(falls)) * 12 / 11)] if falls else []
    factor = total / (max(extents) or total)
    # Where the warm-up ends the first of them begins; that stays.
    first = min(step.get('begin', 0) for step in steps)
    first = first if first < total / 2 else 0
    whole = max(int(total), 1)

    def moved(value: float) -> int:
        return int(value) if value <= first else min(round(value * factor), whole)

    for step in steps:
        old = step.get('begin', 0)
        begin = max(min(moved(old), whole - 1), 0)
        if 'begin' in step:
            step['begin'] = begin
        if step.get('end'):
            step['end'] = max(moved(step['end']), begin + 1)
        if step.get('T_max'):
            step['T_max'] = max(moved(old + step['T_max']) - begin, 1)
            if 'end' in step:
                step['end'] = begin + step['T_max']
        if step.get('milestones'):
            falls = {moved(old + m) - begin for m in step['milestones']}
            step['milestones'] = sorted(m for m in falls if 0 < m < whole - begin)


def _rising(steps: list[Step], config: Mapping[str, Any]) -> Iterator[str]:
    """A lowest rate that is above the rate that it is the lowest of."""
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer') or {}
    rate = optimizer.get('lr')
    if not rate:
        return
    for step in steps:
        if step.get('eta_min') and step['eta_min'] >= rate:
            yield (
                f'the rate of {type_name(step)} grows from {rate:g} to '
                f'eta_min={step["eta_min"]:g}'
            )
            step['eta_min'] = float(f'{rate * _ETA_MIN:.2g}')


def _switches(config: Mapping[str, Any], length: Length) -> Iterator[Finding]:
    """Hooks that would change the images after the end of the training."""
    total = length.epochs if length.by_epoch else None
    for index, hook in enumerate(config.get('custom_hooks') or ()):
        at = hook.get('switch_epoch')
        if total is None or total < 2 or not at or at < total:
            continue
        key = f'custom_hooks.{index}.switch_epoch'
        yield Finding(
            'schedule',
            key,
            f'{type_name(hook)} changes the pipeline after {at} epochs, and the '
            f'training has {total:g}: strong augmentation would go on to its end',
            (line(key, min(round(total * (1 - 1 / 15)), int(total) - 1)),),
            'warning',
        )
