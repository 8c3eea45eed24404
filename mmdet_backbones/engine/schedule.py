"""How long a training is, and all of its config that follows from that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.config import Config

from ..detector_config.tree import plain, type_name
from ..errors import UserError

# Our choice, eight times the warm-up of mmdet's R-CNN configs: heads start from random
# values, and in a few hundred steps they learn next to nothing.
LEAST_ITERATIONS = 4000
# The longest schedules of mmdet's detectors, YOLOX and RTMDet: nothing of theirs shows
# an image more often.
MOST_EPOCHS = 300
WARM_UP = ('LinearLR', 'QuadraticWarmupLR')
_WARM_UP_SHARE, _VALIDATIONS = 10, 10
# mmengine's LinearLR and ConstantLR of a single step never leave it.
_SHORTEST = 2
# Iterations of warm-up where it is not known how many make an epoch, of which there are
# one or two.
_USUAL_SHORT = 100
# Settings of hooks that are points in time, in epochs.
_POINTS = ('switch_epoch', 'begin_epoch')
# Settings of schedules that are lengths, and no points in time.
_LENGTHS = ('step_size', 'total_steps', 'total_iters')


class Pace(NamedTuple):
    """What a training gets through.

    Attributes:
        images: To train on; None if that is not known.
        batch: Images per iteration, of one process.
    """

    images: int | None
    batch: int

    @property
    def per_epoch(self) -> int | None:
        """Iterations of an epoch."""
        return None if self.images is None else max(-(-self.images // self.batch), 1)


@dataclass(frozen=True)
class _Time:
    """How points in time move: those up to the end of the warm-up, and those after.

    Attributes:
        length: Of the training that there was.
        warm_up: Where its warm-up ended; 0 without one.
        new_length: Of the training that there will be.
        new_warm_up: Where its warm-up ends.
        iterations: Of the new warm-up, where it is counted in them and the rest of the
            schedule is not; 0 for none at all.
    """

    length: float
    warm_up: float
    new_length: float
    new_warm_up: int
    iterations: int | None = None

    def move(self, point: Any) -> Any:
        """Where a point in time goes; an open end stays open."""
        if not point or math.isinf(point):
            return point
        if self.warm_up and point <= self.warm_up:
            return round(point * self.new_warm_up / self.warm_up)
        rest = (point - self.warm_up) / (self.length - self.warm_up)
        moved = round(self.new_warm_up + rest * (self.new_length - self.new_warm_up))
        return max(moved, self.new_warm_up, 1)

    @property
    def told(self) -> tuple[str, str]:
        """Old and new end of the warm-up."""
        new = self.new_warm_up if self.iterations is None else self.iterations
        unit = '' if self.iterations is None else ' iterations'
        return f'{self.warm_up:g}', f'{new}{unit}'

    def stretch(self, span: float) -> int:
        """How long a span of time becomes."""
        return max(round(span * self.new_length / self.length), 1)


def fit_schedule(config: Config, images: int | None, epochs: int | None) -> str:
    """Give a training the length that its data needs, or that is asked for.

    Without a wish the length changes for small data only: it becomes
    :data:`LEAST_ITERATIONS` or more, so long as no image is shown more often than
    :data:`MOST_EPOCHS` times or than by the base. The warm-up is a tenth of the
    training at most. Milestones, hooks and the end of mosaic keep their share of it,
    and validation takes place about ten times.

    Args:
        config: All of it, changed in place.
        images: To train on; None if that is not known.
        epochs: That are asked for, or None.

    Returns:
        What changed and why; empty if nothing did.

    Raises:
        UserError: If epochs are asked for that cannot be had.
    """
    loop = config.get('train_cfg') or {}
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    pace = Pace(images if batch else None, batch or 1)
    by_epoch = 'max_iters' not in loop
    length = loop.get('max_epochs' if by_epoch else 'max_iters')
    if not length:
        if epochs is not None:
            raise UserError(
                '--epochs: the base says nothing of the length of its training: write '
                f'train_cfg = dict(type="EpochBasedTrainLoop", max_epochs={epochs}) '
                'into it'
            )
        return ''
    new = _length(pace, length, by_epoch, epochs)
    warmed = _schedules(config, pace, by_epoch, length, new)
    if new != length:
        _loop(config, by_epoch, length, new)
        _hooks(config, by_epoch, length, new)
    return _sentence(pace, by_epoch, (length, new), warmed, epochs is not None)


def planned_iterations(
    config: Config, images: int, epochs: int | None, batch: int | None = None
) -> int | None:
    """Tell how many iterations :func:`fit_schedule` will give a training.

    Args:
        config: All of it.
        images: To train on.
        epochs: That are asked for, or None.
        batch: Images per iteration, instead of those of the config.

    Returns:
        None if the config names no length or no batch.
    """
    loop = config.get('train_cfg') or {}
    batch = batch or (config.get('train_dataloader') or {}).get('batch_size')
    by_epoch = 'max_iters' not in loop
    length = loop.get('max_epochs' if by_epoch else 'max_iters')
    if not length or not batch:
        return None
    pace = Pace(images, batch)
    new = _length(pace, length, by_epoch, epochs)
    return new * (pace.per_epoch or 1) if by_epoch else new


def _length(pace: Pace, length: int, by_epoch: bool, epochs: int | None) -> int:
    """Of the training, in what the base counts it in."""
    per_epoch = pace.per_epoch
    if epochs is not None:
        if by_epoch:
            return epochs
        if per_epoch is None:
            raise UserError(
                f'--epochs: the base trains for {length} iterations, and how many make '
                'an epoch is not known here, where its annotations are not: give '
                '--data, or write train_cfg.max_iters into the new config'
            )
        return epochs * per_epoch
    if per_epoch is None:
        return length
    if not by_epoch:
        return min(length, max(LEAST_ITERATIONS, MOST_EPOCHS * per_epoch))
    needed = -(-LEAST_ITERATIONS // per_epoch)
    return max(length, min(needed, MOST_EPOCHS))


def _schedules(
    config: Config, pace: Pace, by_epoch: bool, length: int, new: int
) -> tuple[str, str] | None:
    """Move ``param_scheduler``; old and new end of a warm-up that got another one."""
    given = config.get('param_scheduler')
    if isinstance(given, Mapping) and 'type' not in given:
        return None  # of several optimisers, each with its own
    steps = [plain(s) for s in ([given] if isinstance(given, Mapping) else given or ())]
    times = {
        True: _epochs(steps, pace, length, new) if by_epoch else None,
        False: _iterations(steps, pace, by_epoch, length, new),
    }
    moved = []
    for step in steps:
        time = times[bool(step.get('by_epoch', True))]
        changed = step if time is None else _moved(step, time)
        if changed is not None:
            moved.append(changed)
    if moved != steps:
        config.param_scheduler = moved[0] if isinstance(given, Mapping) else moved
    ends = [t.told for t in times.values() if t and t.warm_up]
    return next((pair for pair in ends if pair[0] != pair[1]), None)


def _warm_up_of(
    steps: list[dict[str, Any]], by_epoch: bool, length: float
) -> Mapping[str, Any]:
    """The warm-up of a schedule; empty without one."""
    for step in steps:
        if step.get('by_epoch', True) is not by_epoch or step.get('begin', 0):
            continue
        if type_name(step) in (*WARM_UP, 'ConstantLR'):
            return step if _end_of(step) < length else {}
    return {}


def _end_of(step: Mapping[str, Any]) -> float:
    end = step.get('end')
    return math.inf if end is None else end


def _share_of(total: int) -> int:
    """Longest warm-up of a training of so many iterations, 0 if there is no room."""
    share = max(total // _WARM_UP_SHARE, _SHORTEST)
    return share if 3 * share <= total else 0


def _epochs(steps: list[dict[str, Any]], pace: Pace, length: int, new: int) -> _Time:
    found = _warm_up_of(steps, True, length)
    warm_up = found.get('end', 0)
    if not warm_up or new == length:
        return _Time(length, warm_up, new, warm_up)
    # One that is longer than the base's needs no longer warm-up.
    shorter = round(min(warm_up * new / length, warm_up))
    whole = max(shorter, 1 if found.get('convert_to_iter_based') else _SHORTEST)
    most = 3 if pace.per_epoch is None else _WARM_UP_SHARE
    if whole * most <= new:
        return _Time(length, warm_up, new, whole)
    if pace.per_epoch is None:
        return _Time(length, warm_up, new, 1, _USUAL_SHORT)
    count = _share_of(new * pace.per_epoch)
    return _Time(length, warm_up, new, -(-count // pace.per_epoch), count)


def _iterations(
    steps: list[dict[str, Any]], pace: Pace, by_epoch: bool, length: int, new: int
) -> _Time | None:
    old: float = length
    if by_epoch:
        # Where the base ends is told by its schedule alone, if at all.
        ends = [end for step in steps for end in _ends(step)]
        old = max(ends, default=0) or 1
    warm_up = _warm_up_of(steps, False, math.inf).get('end', 0)
    if warm_up >= old:
        old = warm_up + 1  # nothing but a warm-up
    if by_epoch and pace.per_epoch is None:
        shorter = round(warm_up * min(new / length, 1))
        return _Time(old, warm_up, old * new / length, max(shorter, _SHORTEST))
    total = new * (pace.per_epoch or 1) if by_epoch else new
    short = min(warm_up, _share_of(total))
    stays = new == length and by_epoch and old <= total
    return _Time(old, warm_up, old if stays else total, short)


def _ends(step: Mapping[str, Any]) -> list[float]:
    if step.get('by_epoch', True):
        return []
    points = [step.get('end'), *(step.get('milestones') or ())]
    return [p for p in points if p is not None and not math.isinf(p)]


def _moved(step: dict[str, Any], time: _Time) -> dict[str, Any] | None:
    """One schedule, moved; None if nothing is left of it."""
    new = dict(step)
    for key in ('begin', 'end'):
        if key in step:
            new[key] = time.move(step[key])
    if not step.get('begin', 0) and step.get('end') == time.warm_up:
        if time.iterations is not None:
            new |= dict(by_epoch=False, end=time.iterations)
            new.pop('convert_to_iter_based', None)
        if not new['end']:
            return None
    elif new.get('begin', 0) >= _end_of(new):
        return None
    if step.get('milestones'):
        last = math.ceil(time.new_length) - 1
        points = {
            min(time.move(point), last) if point < time.length else time.move(point)
            for point in step['milestones']
        }
        new['milestones'] = sorted(point for point in points if 0 < point <= last)
        if not new['milestones']:
            return None
    return {**new, **_lengths(step, new, time)}


def _lengths(
    step: Mapping[str, Any], new: Mapping[str, Any], time: _Time
) -> dict[str, Any]:
    """Settings that are lengths; ``T_max`` may be the end of its schedule as well."""
    found: dict[str, Any] = {
        key: time.stretch(step[key]) for key in _LENGTHS if step.get(key) is not None
    }
    if step.get('periods'):
        found['periods'] = [time.stretch(period) for period in step['periods']]
    if step.get('T_max') is not None:
        begin, end = new.get('begin', 0), _end_of(new)
        found['T_max'] = time.stretch(step['T_max'])
        if step['T_max'] == step.get('end') and begin + end <= time.new_length:
            found['T_max'] = end
        elif step['T_max'] in (step.get('end'), _end_of(step) - step.get('begin', 0)):
            found['T_max'] = end - begin
    return found


def _loop(config: Config, by_epoch: bool, length: int, new: int) -> None:
    loop, time = config.train_cfg, _Time(length, 0, new, 0)
    loop['max_epochs' if by_epoch else 'max_iters'] = new
    loop['val_interval'] = max(round(new / _VALIDATIONS), 1)
    if loop.get('val_begin'):
        loop['val_begin'] = min(time.move(loop['val_begin']), new)
    if loop.get('dynamic_intervals'):
        loop['dynamic_intervals'] = [
            (time.move(begin), min(time.stretch(interval), loop['val_interval']))
            if interval < length
            else (time.move(begin), new)
            for begin, interval in loop['dynamic_intervals']
        ]


def _hooks(config: Config, by_epoch: bool, length: int, new: int) -> None:
    time = _Time(length, 0, new, 0)
    checkpoint = (config.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and checkpoint.get('by_epoch', True) == by_epoch:
        checkpoint['interval'] = max(round(new / _VALIDATIONS), 1)
    if not by_epoch:
        return
    for hook in config.get('custom_hooks') or ():
        for key in _POINTS:
            if hook.get(key):
                hook[key] = min(max(time.move(hook[key]), 1), max(new - 1, 1))
        if hook.get('num_last_epochs'):
            # At least one, so that no training ends with mosaic.
            last = new - time.move(length - hook['num_last_epochs'])
            hook['num_last_epochs'] = max(last, 1)


def _sentence(
    pace: Pace,
    by_epoch: bool,
    lengths: tuple[int, int],
    warmed: tuple[str, str] | None,
    asked: bool,
) -> str:
    old, new = lengths
    if old == new and warmed is None:
        return ''
    unit = 'epochs' if by_epoch else 'iterations'
    said = f'{new} {unit} instead of {old}' if old != new else f'{new} {unit}'
    if asked:
        said += ', as asked for'
    elif old != new and by_epoch:
        said += (
            f' for {LEAST_ITERATIONS} iterations or what {MOST_EPOCHS} epochs have of '
            'them, as heads from random values learn little in fewer'
        )
    elif old != new:
        said += f', as no image is worth more than {MOST_EPOCHS} epochs'
    if warmed is not None:
        said += f'; warm-up to {warmed[1]} instead of {warmed[0]}'
    if pace.images is None or pace.per_epoch is None:
        return f'Length: {said}.'
    total = new * pace.per_epoch if by_epoch else new
    said = f'{pace.images} images, {pace.per_epoch} iterations an epoch: {said}'
    if total < LEAST_ITERATIONS // 2 and pace.batch > 1 and not asked:
        fewer = max(pace.batch * total // LEAST_ITERATIONS, 1)
        said += f'. {total} iterations are few: --batch {fewer} makes more of them'
    return f'Length: {said}.'
