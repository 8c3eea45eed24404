"""Learning rates that follow the batch size of all processes together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..detector_config.tree import dotted, walk
from ..detector_config.values import require_values
from ..errors import UserError

RULES = ('linear', 'sqrt')
_SETTINGS = ('enable', 'base_batch_size', 'rule')
# Settings of schedulers that are rates themselves, not shares of one.
ABSOLUTE = ('eta_min', 'eta_max', 'min_value')


@dataclass(frozen=True)
class Scale:
    """How a learning rate is adapted to the batch size.

    The linear rule is that of `arXiv 1706.02677 <https://arxiv.org/abs/1706.02677>`_,
    section 2.1; the square root is that of `arXiv 1404.5997
    <https://arxiv.org/abs/1404.5997>`_, section 3, for optimisers like Adam.

    Attributes:
        base_batch_size: Images per step that the rate of the config was chosen for.
        num_gpus: Processes that train together.
        samples_per_gpu: Images per process and iteration.
        accumulative_counts: Iterations per step of the optimiser.
        rule: ``'linear'`` or ``'sqrt'``.
    """

    base_batch_size: int
    num_gpus: int
    samples_per_gpu: int
    accumulative_counts: int = 1
    rule: str = 'linear'

    @property
    def batch_size(self) -> int:
        """Images per step of the optimiser, of all processes together."""
        return self.num_gpus * self.samples_per_gpu * self.accumulative_counts

    @property
    def factor(self) -> float:
        """What rates are multiplied by."""
        ratio = self.batch_size / self.base_batch_size
        return ratio if self.rule == 'linear' else math.sqrt(ratio)

    def formula(self, rate: float) -> str:
        """Spell the scaling of a rate out, with its numbers."""
        parts = f'{self.num_gpus} GPUs x {self.samples_per_gpu} images'
        if self.accumulative_counts > 1:
            parts += f' x {self.accumulative_counts} accumulated'
        ratio = f'({parts}) / {self.base_batch_size}'
        ratio = ratio if self.rule == 'linear' else f'sqrt({ratio})'
        return f'{rate:g} x {ratio} = {rate * self.factor:g}'


def count_processes(launcher: str) -> int:
    """Tell how many processes were started together.

    Args:
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
    """
    variable = {
        'pytorch': 'WORLD_SIZE',
        'slurm': 'SLURM_NTASKS',
        'mpi': 'OMPI_COMM_WORLD_SIZE',
    }.get(launcher)
    return int(os.environ.get(variable, 1)) if variable else 1


def find_scale(
    cfg: Config, num_gpus: int, samples_per_gpu: int | None = None
) -> Scale | None:
    """Read from a config how its learning rate is scaled.

    Args:
        cfg: The whole config. ``auto_scale_lr`` holds ``base_batch_size``, and
            ``rule`` if it is not the linear one.
        num_gpus: Processes that train together.
        samples_per_gpu: Images per process, instead of those of the config.

    Returns:
        The scale, or None if the config does not say what its rate was chosen for.

    Raises:
        UserError: Names all that is wrong with ``auto_scale_lr``.
    """
    settings = dict(cfg.get('auto_scale_lr') or {})
    if 'base_batch_size' not in settings and not settings.get('enable'):
        return None
    problems = _problems(settings)
    if samples_per_gpu is None:
        samples_per_gpu = (cfg.get('train_dataloader') or {}).get('batch_size')
        if type(samples_per_gpu) is not int or samples_per_gpu < 1:
            problems.append(
                'train_dataloader.batch_size must be a positive number of images, '
                f'got {samples_per_gpu!r}'
            )
    if problems or samples_per_gpu is None:
        raise UserError(
            'the learning rate cannot be scaled: '
            + '; '.join(problems)
            + '. For example write auto_scale_lr = dict(base_batch_size=16)'
        )
    return Scale(
        settings['base_batch_size'],
        num_gpus,
        samples_per_gpu,
        (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1),
        settings.get('rule', 'linear'),
    )


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = []
    base = settings.get('base_batch_size')
    if type(base) is not int or base < 1:
        problems.append(
            'auto_scale_lr.base_batch_size must be a positive number of images, got '
            f'{base!r}'
        )
    rule = settings.get('rule', 'linear')
    if rule not in RULES:
        problems.append(
            f'auto_scale_lr.rule must be {" or ".join(map(repr, RULES))}, got {rule!r}'
        )
    unknown = [key for key in settings if key not in _SETTINGS]
    if unknown:
        problems.append(
            f'auto_scale_lr takes {", ".join(_SETTINGS)}, not {", ".join(unknown)}'
        )
    return problems


def read_rates(cfg: Config) -> dict[str, float]:
    """Find every learning rate of a config.

    Args:
        cfg: The whole config.

    Returns:
        Rates by their key in the config: those of the optimisers and of parameter
        groups of their own, and the bounds that schedulers give as rates.
    """
    return {
        f'{path}.{key}': node[key] for path, node, key in _rates(cfg) if node[key] != 0
    }


def scale_rates(cfg: Config, scale: Scale) -> None:
    """Scale every learning rate of a config, once.

    Afterwards the config says that its rates are those of the new batch size, so that
    it can be read, kept and scaled again.

    Args:
        cfg: The whole config, changed in place.
        scale: What :func:`find_scale` found.
    """
    for _, node, key in list(_rates(cfg)):
        node[key] = node[key] * scale.factor
    settings = cfg.auto_scale_lr
    settings.base_batch_size = scale.batch_size
    # mmengine would scale once more, and does not count what is accumulated.
    settings.enable = False


def tabulate_rates(
    cfg: Config, gpus: Sequence[int], samples_per_gpu: int | None = None
) -> list[dict[str, Any]]:
    """Tell which rates a config gets on different numbers of GPUs.

    Args:
        cfg: The whole config; it is left as it is.
        gpus: Numbers of processes.
        samples_per_gpu: Images per process, instead of those of the config.

    Returns:
        For each number: ``gpus``, ``batch_size``, ``base``, ``rule``, ``factor`` and
        ``rates`` by their key in the config.

    Raises:
        UserError: If there is nothing to scale by, or a number is not positive.
    """
    require_values(cfg)
    numbers = [*gpus, *([] if samples_per_gpu is None else [samples_per_gpu])]
    if min(numbers, default=0) < 1:
        raise UserError(f'numbers of GPUs and of images are 1 or more, got {numbers}')
    rows = []
    for number in gpus:
        scale = find_scale(cfg, number, samples_per_gpu)
        if scale is None:
            raise UserError(
                'the config does not say what batch size its learning rate was chosen '
                'for: write auto_scale_lr = dict(base_batch_size=16)'
            )
        rows.append(
            dict(
                gpus=number,
                batch_size=scale.batch_size,
                base=scale.base_batch_size,
                rule=scale.rule,
                factor=scale.factor,
                rates={k: v * scale.factor for k, v in read_rates(cfg).items()},
            )
        )
    return rows


def _rates(cfg: Config) -> Iterator[tuple[str, Any, str]]:
    yield from _numbers(cfg.get('optim_wrapper'), 'optim_wrapper', ('lr',))
    schedulers = cfg.get('param_scheduler')
    if isinstance(schedulers, Mapping) and 'type' in schedulers:
        schedulers = [schedulers]
    for path, node, key in _numbers(schedulers, 'param_scheduler', ABSOLUTE):
        # The bounds of a momentum are no rates.
        if 'Momentum' not in str(node.get('type')):
            yield path, node, key


def _numbers(
    node: Any, name: str, keys: tuple[str, ...]
) -> Iterator[tuple[str, Any, str]]:
    for place, part in walk(node, (name,)):
        for key in keys:
            if isinstance(part.get(key), (int, float)):
                yield dotted(*place), part, key
