"""Run a Runner: what fails before the first iteration or from outside is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from ..commands import command
from ..detector_config.tree import dataset_of
from ..errors import (
    CheckpointError,
    PretrainedWeightsError,
    UserError,
    explain,
    printable,
)
from ..files import ABSENT, path_of, what_is
from .divergence import tell_divergence, unfinite_parameters
from .images import guard_images, parts_of
from .resuming import no_checkpoint, settle_start, telling_where_to_go_on

_TOLD = (UserError, CheckpointError, PretrainedWeightsError)
# Some of mmengine's messages hold half a config.
_LONGEST = 600
# No net has such weights, and its maps overflow.
_ABSURD = 1e8
_IN_WORKER = re.compile(r'^Caught \w+ in DataLoader worker process')


def require_load_from(cfg: Config) -> None:
    """Make sure that the checkpoint to start from is there.

    Args:
        cfg: The whole config.

    Raises:
        UserError: If ``load_from`` is a path and nothing is there.
    """
    given = cfg.get('load_from')
    text = given if isinstance(given, str) else ''
    if given is None or (text and no_checkpoint(cfg, text) is None):
        return
    found = what_is(path_of(text)) if text else ABSENT
    what = '' if found == ABSENT else f', which is {found}'
    raise UserError(
        f'load_from: there is no checkpoint {printable(repr(given))}{what}: write its '
        f'path (relative to {Path.cwd()}) or load_from = None'
    )


def require_work_dir(cfg: Config) -> None:
    """Make sure that the work folder can be written, before anything is built.

    Args:
        cfg: The whole config, with ``work_dir``.

    Raises:
        UserError: If it cannot.
    """
    try:
        folder = Path(cfg.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / '.writable'
        trial.write_bytes(b'')
        trial.unlink()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f'the work folder {str(cfg.work_dir)!r} cannot be written: {error}: write '
            '--work-dir FOLDER with one that can'
        ) from error


class _Started(Hook):
    """Remember that the first iteration was reached."""

    priority = 'LOWEST'
    reached = False

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        self.reached = True

    before_test_iter = before_train_iter


class _PlainFile(Hook):
    """Let EMAHook read a file of tensors alone, as mmengine's own loader does."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint.setdefault('state_dict', dict(checkpoint))


def train(runner: Runner, force: bool = False) -> None:
    """Train.

    Args:
        runner: Built from a config.
        force: As for :func:`~.resuming.settle_start`.

    Raises:
        UserError: If a part cannot be built, there is nothing to learn from or to
            measure on, or the machine gives up.
    """
    settle_start(runner, force)
    started = _watched(runner)
    begins = _told(lambda: not started.reached, 'the training cannot start')
    going = telling_where_to_go_on(runner)
    with _machine_told(), _divergence_told(runner), begins, going:
        _require_optimizer(runner.cfg)
        _prepare(runner, 'train')
        if runner._val_loop is not None:
            _prepare(runner, 'val')
        runner.train()


def _require_optimizer(cfg: Config) -> None:
    # mmengine calls what it does not find.
    kind = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('type')
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        raise UserError(
            explain(KeyError(f'{kind} is not in the mmdet::optimizer registry'))
        )


def test(runner: Runner) -> dict[str, float]:
    """Test.

    Returns:
        What was measured, by name.

    Raises:
        UserError: As :func:`train`.
    """
    started = _watched(runner)
    begins = _told(lambda: not started.reached, 'the test cannot start')
    with _machine_told(), begins:
        _prepare(runner, 'test')
        return runner.test()


def _watched(runner: Runner) -> _Started:
    started = _Started()
    runner.register_hook(started, priority='LOWEST')
    runner.register_hook(_PlainFile(), priority='VERY_HIGH')
    return started


def _prepare(runner: Runner, split: str) -> None:
    """Build a loop with its data set, and look whether there is something in it."""
    loader: Any = None
    dataset: Any = None
    try:
        loop = getattr(runner, f'{split}_loop')
        loader = getattr(loop, 'dataloader', None)
        dataset = getattr(loader, 'dataset', None)
        count = len(dataset) if hasattr(dataset, '__len__') else None
    except ValueError as error:
        # mmengine joins the images of a data set that has none.
        if 'need at least one array to concatenate' not in str(error):
            raise
        count = 0
    if count == 0:
        raise UserError(_empty(runner.cfg, split))
    if dataset is not None and not _has_boxes(dataset):
        raise UserError(
            f'{split}_dataloader: no box stands in any of the {count} images, so there '
            f'is nothing to {"learn" if split == "train" else "measure"}: '
            f'{_look_at(runner.cfg, split)}'
        )
    if split == 'train' and count and len(loader) == 0:
        size = runner.cfg.train_dataloader.batch_size
        raise UserError(
            f'train_dataloader: {count} images make no batch of {size} where the last '
            f'one is left out: write train_dataloader.batch_size = {count} or '
            'train_dataloader.drop_last = False'
        )
    guard_images(runner, split)


def _has_boxes(dataset: Any) -> bool:
    sources = [part for part in parts_of(dataset) if hasattr(part, 'get_data_info')]
    leaves = [part for part in sources if not hasattr(part, 'datasets')]
    if not leaves:
        return True
    for part in leaves:
        for index in range(len(part)):
            info = part.get_data_info(index)
            # Of other tasks, nobody knows where the boxes are.
            if not isinstance(info, dict) or info.get('instances', True):
                return True
    return False


def _empty(cfg: Config, split: str) -> str:
    what = f'{split}_dataloader: there is no image in the data set'
    if split == 'train':
        what += (
            ', or filter_cfg leaves none: images without boxes of a class of '
            'metainfo.classes (filter_empty_gt=True), and sides below min_size'
        )
    return f'{what}: {_look_at(cfg, split)}'


def _look_at(cfg: Config, split: str) -> str:
    dataset = dataset_of(cfg, split)
    classes = (dataset.get('metainfo') or {}).get('classes')
    names = f'the classes {classes}' if classes else 'the classes of its type'
    file = Path(str(dataset.get('data_root') or ''), str(dataset.get('ann_file') or ''))
    return (
        f"look whether '{file}' has images, and boxes of {names}; "
        f'{command("check")} compares them'
    )


@contextmanager
def _told(applies: Callable[[], bool], what: str) -> Iterator[None]:
    """Tell what fails in one message, as long as that is a matter of the config."""
    try:
        yield
    except _TOLD:
        raise
    except Exception as error:
        if not applies() or _of_machine(error):
            raise
        text = f'{type(error).__name__}: {explain(error)}'
        raise UserError(f'{what}: {_innermost(text)}') from error


@contextmanager
def _divergence_told(runner: Runner) -> Iterator[None]:
    """A step after parameters became NaN may fail anywhere in a detector."""
    try:
        yield
    except _TOLD:
        raise
    except Exception as error:
        if not unfinite_parameters(runner, _ABSURD):
            raise
        what = f'parameters are beyond {_ABSURD:g}'
        raise UserError(tell_divergence(runner, what)) from error


@contextmanager
def _machine_told() -> Iterator[None]:
    """Tell what the machine or the data did, instead of where it was noticed."""
    try:
        yield
    except _TOLD as error:
        if _IN_WORKER.match(str(error)):
            raise UserError(_innermost(str(error))) from error
        raise
    except Exception as error:
        message = _of_machine(error)
        if message is None:
            raise
        raise UserError(message) from error


def _of_machine(error: Exception) -> str | None:
    text = str(error)
    if 'DataLoader worker' in text and ('is killed' in text or 'exited' in text):
        return (
            'a process that loads images was killed from outside: '
            f'{text.split(". ")[0]}. Mostly the memory is full (dmesg says "Out of '
            'memory"): write train_dataloader.num_workers = 1, or 0, and the same of '
            'val_dataloader; or /dev/shm is too small (docker run --shm-size=8g). The '
            'training goes on with the same command and --resume'
        )
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f'the memory of the GPU is full: {text.split(". ")[0]}. Write a smaller '
            'train_dataloader.batch_size, smaller images, --amp, or with_cp=True for '
            'the backbone'
        )
    return None


def _innermost(text: str) -> str:
    """Message of an exception that a process of a loader handed on."""
    found = [*re.finditer(r'^[\w.]*(?:Error|Exception): ', text, re.M)]
    inner = text[found[-1].end() :] if 'Traceback' in text and found else text
    inner = inner.strip()
    return inner if len(inner) <= _LONGEST else f'{inner[:_LONGEST]}...'
