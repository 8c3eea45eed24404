"""What a search is asked for, and what of it cannot be."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..environment import missing_extra
from ..errors import CheckpointError, UserError
from ..files import ABSENT, FOLDER, what_is
from ..swap.options import SMALLEST_SIDE
from ..weights import locate_checkpoint
from .mirror import storage_problem

DEVICES = ('cpu', 'cuda')
ENGINES = ('torch', 'onnx', 'openvino')
# A search may go on with others of these: they choose no other trainings.
_FREE = ('out', 'hours', 'trials', 'ray', 'cpus_per_trial', 'storage')


@dataclass(frozen=True)
class SearchOptions:
    """What to search, and with how much.

    Attributes:
        base: Config of a detector, a path or ``mmdet::folder/name.py``.
        data: Folder of a data set, as a swap takes it.
        backbones: Names of the catalog, or globs.
        out: Folder of the search.
        latency: Most milliseconds that the detector may take for an image.
        latency_of: What is measured: ``'torch'``, the detector as ``predict`` folds it,
            or ``'onnx'`` or ``'openvino'``, as ``export`` writes it.
        device: Where latencies are measured.
        licence: Of the usual weights.
        max_params: Of a backbone without any head.
        sizes: Sides of square images; the size of the base's test if empty.
        hours: Of all runs of the search together.
        trials: Trainings, of all runs together; two for each candidate if left out.
        epochs: Of a training that is not stopped.
        batch: Images per iteration; as a swap chooses if left out.
        no_weights: Whether trainings start from random values.
        checkpoints: Files of weights by name of a backbone.
        seed: Of trainings and of the choice of trials.
        ray: Address of a cluster, None for Ray on this machine.
        storage: Where machines that share no disk keep the work folders of trials, a
            path or an address that fsspec knows.
        cpus_per_trial: Cores of a training.
        rounds: How often each latency is measured.
    """

    base: str
    data: str
    backbones: tuple[str, ...]
    out: Path
    latency: float | None = None
    latency_of: str = 'torch'
    device: str = 'cpu'
    licence: str | None = None
    max_params: int | None = None
    sizes: tuple[int, ...] = ()
    hours: float = 1.0
    trials: int | None = None
    epochs: int = 12
    batch: int | None = None
    no_weights: bool = False
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    ray: str | None = None
    storage: str | None = None
    cpus_per_trial: int = 1
    rounds: int = 10

    def chosen(self) -> dict[str, Any]:
        """What decides which trainings there are, for ``json.dumps``."""
        return {k: _plain(v) for k, v in asdict(self).items() if k not in _FREE}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def require_sound_options(options: SearchOptions) -> None:
    """Refuse a search that cannot be.

    Raises:
        UserError: Lists everything that is wrong.
    """
    problems = list(_problems(options))
    if problems:
        raise UserError('\n'.join(problems))


def _problems(options: SearchOptions) -> Iterator[str]:
    missing = missing_extra('search', 'search', 'ray', 'optuna')
    if missing:
        yield missing
    yield from _wrong_numbers(options)
    if options.no_weights and (options.licence or options.checkpoints):
        given = '--licence' if options.licence else '--checkpoint'
        yield f'--no-weights and {given} contradict each other: leave one out'
    if options.device not in DEVICES:
        yield f'--device must be {" or ".join(DEVICES)}, got {options.device!r}'
    elif options.device == 'cuda' and not torch.cuda.is_available():
        yield '--device cuda: torch sees no GPU here; write --device cpu'
    yield from _wrong_engine(options)
    yield from _wrong_places(options)


def _wrong_engine(options: SearchOptions) -> Iterator[str]:
    if options.latency_of not in ENGINES:
        known = ' or '.join(ENGINES)
        yield f'--latency-of must be {known}, got {options.latency_of!r}'
    elif options.latency_of != 'torch':
        # Its importing takes seconds.
        from ..deploy.formats import packages_of

        needed = packages_of(options.latency_of, 'fp32')
        what = f'--latency-of {options.latency_of}'
        if missing := missing_extra(what, 'deploy', *needed):
            yield missing
        if options.device != 'cpu':
            yield (
                f'--latency-of {options.latency_of} is measured on the CPU: write '
                '--device cpu, or --latency-of torch'
            )


def _wrong_numbers(options: SearchOptions) -> Iterator[str]:
    if not options.backbones:
        yield "--backbones takes names or globs, such as 'timm/*lite*' timm/resnet18"
    for flag, value in (
        ('--latency', options.latency),
        ('--hours', options.hours),
    ):
        if value is not None and not 0 < value < math.inf:
            yield f'{flag} must be a positive number, got {value}'
    for flag, count in (
        ('--trials', options.trials),
        ('--epochs', options.epochs),
        ('--batch', options.batch),
        ('--cpus-per-trial', options.cpus_per_trial),
        ('--rounds', options.rounds),
    ):
        if count is not None and count < 1:
            yield f'{flag} must be a positive integer, got {count}'
    small = [side for side in options.sizes if side < SMALLEST_SIDE]
    if small:
        yield (
            f'--sizes are sides in pixels of {SMALLEST_SIDE} or more, got '
            f'{", ".join(map(str, small))}'
        )
    cores = os.cpu_count() or 1
    if options.ray is None and options.cpus_per_trial > cores:
        yield f'--cpus-per-trial {options.cpus_per_trial}: this machine has {cores}'


def _wrong_places(options: SearchOptions) -> Iterator[str]:
    for name, source in options.checkpoints.items():
        try:
            locate_checkpoint(source)
        except CheckpointError as error:
            yield f'--checkpoint {name}={source}: {error}'
    if options.storage is not None:
        problem = storage_problem(options.storage)
        if problem is not None:
            yield problem
    if not str(options.out).isprintable() or not options.out.name:
        yield f'-o takes the name of a folder, got {str(options.out)!r}'
        return
    found = what_is(options.out)
    if found not in (ABSENT, FOLDER):
        yield f"-o '{options.out}' is {found}: name a folder"


def parse_latency(text: str) -> float:
    """Read milliseconds: ``'20ms'``, ``'0.02s'`` or a number of milliseconds.

    Raises:
        UserError: If it is none.
    """
    lower = text.strip().lower()
    unit = 1.0
    if lower.endswith('ms'):
        lower = lower[:-2]
    elif lower.endswith('s'):
        lower, unit = lower[:-1], 1000.0
    try:
        return float(lower) * unit
    except ValueError as error:
        raise UserError(
            f"--latency takes milliseconds, as in 20ms, got '{text}'"
        ) from error


def parse_checkpoints(texts: list[str]) -> dict[str, str]:
    """Read ``NAME=FILE`` of each backbone that has weights of its own.

    Raises:
        UserError: If one is not of that form.
    """
    found = {}
    for text in texts:
        name, sign, source = text.partition('=')
        if not (name and sign and source):
            raise UserError(
                f'--checkpoint takes NAME=FILE, as in timm/resnet18=mine.pth, got '
                f"'{text}'"
            )
        found[name] = source
    return found
