"""One trial, trained by mmdet's Runner; it goes on where its folder says it was."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..detector_config.read import read_by_name
from ..engine import launch, resuming, running
from ..engine.without_gpu import require_gpu
from ..errors import explain
from ..files import write_atomically
from ..runs.logs import usual_metric
from ..swap.swapping import SwapOptions
from .mirror import DONE, Mirror
from .trial_config import TrialSpec, write_trial_config

CONFIG, NOTES = 'trial.py', 'trial.json'
ERROR = 'error.txt'
_PACKAGES = ('mmdet_backbones', 'mmdet', 'mmengine', 'torch', 'timm', 'ray', 'optuna')
#: Gets epoch and AP after each validation.
Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TrialOrder:
    """What every trial of a search has in common.

    Attributes:
        folder: Of all trials; every machine of a cluster sees it, or has its own where
            there is a ``storage``.
        storage: Address of copies of the work folders, None for none.
        base: Config of the detector, an absolute path or ``mmdet::folder/name.py``.
        data: Folder of the data set, an absolute path.
        digest: Hash of the data set.
        epochs: Of a training that is not stopped.
        every: Epochs between validations.
        seed: Of the training.
        cpus: Cores of it.
        resized: Whether images get the size of the trial, or that of the base.
        batch: Images per iteration; as a swap chooses if None.
        no_weights: Whether it starts from random values.
        checkpoints: Files of weights by name of a backbone, absolute paths.
    """

    folder: str
    storage: str | None
    base: str
    data: str
    digest: str
    epochs: int
    every: int
    seed: int
    cpus: int
    resized: bool
    batch: int | None
    no_weights: bool
    checkpoints: Mapping[str, str]

    def swap_options(
        self, spec: TrialSpec, out: Path, epochs: int | None
    ) -> SwapOptions:
        """What a swap is asked for; without epochs for the full training."""
        return SwapOptions(
            base=self.base,
            name=spec.backbone,
            out=out,
            data=self.data,
            size=spec.size if self.resized else None,
            epochs=epochs,
            batch=self.batch,
            checkpoint=self.checkpoints.get(spec.backbone),
            no_weights=self.no_weights,
            force=True,
        )


def train_trial(order: TrialOrder, spec: TrialSpec, report: Report) -> None:
    """Train, and tell of every validation, those before a kill first.

    What was trained stays trained: the work folder has a checkpoint after every epoch,
    and a trial that has ended is not started again.

    Args:
        order: Of the search.
        spec: The trial.
        report: Gets each epoch and its AP. It may stop the training by not returning.
    """
    folder = Path(order.folder, spec.name)
    try:
        if order.storage is not None:
            Mirror(order.storage, folder).fetch()
        done = _told_before(folder, report)
        if done < order.epochs:
            _train(folder, order, spec, report)
    except Exception as error:  # of whatever a backbone does in a detector
        text = f'{type(error).__name__}: {explain(error)}'
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ERROR, text)
        if order.storage is not None:
            Mirror(order.storage, folder).push()
        report(dict(epoch=0, ap=0.0, error=text))


def _told_before(folder: Path, report: Report) -> float:
    """Report what earlier processes measured; returns the last epoch."""
    done = _read_done(folder)
    for epoch, ap in done.validations.items():
        report(dict(epoch=epoch, ap=ap))
    return max(done.validations, default=0)


@dataclass
class _Done:
    """What the processes of a trial did.

    Attributes:
        parts: First and last iteration of each process, and where it ran.
        validations: AP by epoch.
    """

    parts: list[dict[str, Any]] = field(default_factory=list)
    validations: dict[float, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        content = dict(parts=self.parts, validations=list(self.validations.items()))
        write_atomically(folder / DONE, json.dumps(content, indent=1), durable=True)


def _read_done(folder: Path) -> _Done:
    path = folder / DONE
    if not path.is_file():
        return _Done()
    content = json.loads(path.read_text(encoding='utf-8'))
    return _Done(content['parts'], dict(content['validations']))


def _train(folder: Path, order: TrialOrder, spec: TrialSpec, report: Report) -> None:
    config = folder / CONFIG
    if not config.is_file():
        write_trial_config(spec, order.swap_options(spec, config, order.epochs))
    notes = dict(
        trial=asdict(spec), seed=order.seed, data=order.digest, versions=versions()
    )
    write_atomically(folder / NOTES, json.dumps(notes, indent=1))
    torch.set_num_threads(order.cpus)
    cfg = read_by_name(str(config))
    _settle(cfg, folder, order)
    require_gpu(cfg)
    launch.fuse_optimizer(cfg)
    launch.apply_lr_scaling(cfg)
    resuming.set_resume(cfg, 'auto')
    launch.require_data(cfg, 'train', 'val')
    runner = launch.build_runner(cfg)
    runner.register_hook(_Tells(folder, order, report), priority='LOWEST')
    running.train(runner)


def _settle(cfg: Config, folder: Path, order: TrialOrder) -> None:
    """Fit a config to a trial: its folder, its seed, its validations, its cores."""
    cfg.launcher = 'none'
    cfg.work_dir = str(folder)
    # Runners of one second would share a name.
    cfg.experiment_name = f'{folder.name}_{os.getpid()}'
    cfg.randomness = dict(seed=order.seed)
    loop = cfg.train_cfg
    by_epoch = 'max_iters' not in loop
    step = order.every if by_epoch else loop.max_iters * order.every // order.epochs
    loop.val_interval = max(step, 1)
    for key in ('dynamic_intervals', 'val_begin'):
        loop.pop(key, None)
    hooks = cfg.setdefault('default_hooks', {})
    kept = max(loop.max_iters // order.epochs, 1) if not by_epoch else 1
    hooks['checkpoint'] = dict(
        type='CheckpointHook', interval=kept, by_epoch=by_epoch, max_keep_ckpts=1
    )
    for name in ('train', 'val', 'test'):
        loader = cfg.get(f'{name}_dataloader')
        if loader:
            # One core has enough to do with training; more processes would only wait.
            loader.num_workers = max(order.cpus - 1, 0)
            loader.persistent_workers = order.cpus > 1
            loader.pop('prefetch_factor', None)


class _Tells(Hook):
    """Report validations, and write down which iterations this process trained."""

    def __init__(self, folder: Path, order: TrialOrder, report: Report) -> None:
        self.folder = folder
        self.order = order
        self.report = report
        self.done = _read_done(folder)
        self.mirror = Mirror(order.storage, folder) if order.storage else None

    def before_train(self, runner: Runner) -> None:
        """Begin a part."""
        here = dict(host=socket.gethostname(), process=os.getpid())
        self.done.parts.append({'from': runner.iter, 'to': runner.iter, **here})

    def after_train_epoch(self, runner: Runner) -> None:
        """End it here, if no epoch follows."""
        self.done.parts[-1]['to'] = runner.iter
        self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Copy what could not be copied before, or fail."""
        if self.mirror is not None:
            self.mirror.push()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Tell the AP: 0 if nothing was found, where COCO has none or -1."""
        loop: Any = runner.train_loop
        epoch: float = runner.epoch
        if not isinstance(loop, EpochBasedTrainLoop):
            self.done.parts[-1]['to'] = runner.iter
            epoch = runner.iter * self.order.epochs / loop.max_iters
        name = usual_metric(metrics or {})
        ap = max(float(metrics[name]), 0.0) if metrics and name else 0.0
        self.done.validations[epoch] = ap
        self._write(runner)
        self.report(dict(epoch=epoch, ap=ap))

    def _write(self, runner: Runner) -> None:
        self.done.write(self.folder)
        if self.mirror is None:
            return
        try:
            self.mirror.push()
        except Exception as error:  # each kind of storage has its own
            # The copy of the next epoch has this one in it.
            runner.logger.warning(
                f'--storage: not copied ({type(error).__name__}: {explain(error)})'
            )


def iterations_of(folder: Path) -> list[tuple[int, int]]:
    """Which iterations of a trial its processes trained, each as first and last.

    Args:
        folder: Of the trial.
    """
    return [(part['from'], part['to']) for part in _read_done(folder).parts]


def versions() -> dict[str, str]:
    """Versions of the packages that train, as they are in this process."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
