"""A training of a fraction of a second with mmengine's real Runner and our hooks."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_backbones import errors
from mmdet_backbones.engine import launch, resuming, running

ITERATIONS = 4
_NUMBERS = itertools.count()


@MODELS.register_module()
class TinyNet(BaseModel):
    """A net without chance in it, so that a training that goes on is the same one."""

    def __init__(self, width: int = 8, depth: int = 1) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))]
        layers += [nn.Linear(width, width) for _ in range(depth)]
        self.net = nn.Sequential(*layers)

    def init_weights(self) -> None:
        with torch.no_grad():
            for number, value in enumerate(self.parameters()):
                generator = torch.Generator().manual_seed(number)
                value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
        super().init_weights()

    def forward(self, inputs: Any, mode: str = 'tensor', **_: Any) -> Any:
        out = self.net(torch.stack(list(inputs)))
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else out.flatten()


@DATASETS.register_module()
class TinyData(BaseDataset):
    """A few points, the same ones in every epoch."""

    METAINFO = dict(classes=('point',))

    def __init__(self) -> None:
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict]:
        return [dict(number=number) for number in range(ITERATIONS * 2)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.rand(4, generator=generator))


@METRICS.register_module()
class TinyMetric(BaseMetric):
    """Two numbers that grow with training."""

    default_prefix = 'tiny'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(float(sum(map(abs, data_samples))))

    def compute_metrics(self, results: list) -> dict[str, float]:
        value = 1 / (1 + sum(results))
        return dict(acc=value, acc2=value)


def config(work: Path, epochs: int = 3, **settings: Any) -> Config:
    """A config for :func:`runner`; settings are merged over it, by dotted keys."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='TinyData'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    cfg = Config(
        dict(
            default_scope='mmengine',
            model=dict(type='TinyNet'),
            work_dir=str(work),
            launcher='none',
            train_dataloader=loader,
            val_dataloader=loader,
            val_evaluator=dict(type='TinyMetric'),
            val_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            param_scheduler=[dict(type='MultiStepLR', milestones=[2], by_epoch=True)],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1),
                logger=dict(type='LoggerHook', interval=2),
            ),
            custom_hooks=[],
            randomness=dict(seed=0),
            resume=False,
            load_from=None,
            log_level='WARNING',
        )
    )
    cfg.merge_from_dict(settings)
    return cfg


def build(cfg: Config) -> Runner:
    """A Runner as ``tools/train.py`` builds it."""
    # Runners of one second would share a name, and with it their logs.
    cfg.experiment_name = f'tiny_{next(_NUMBERS)}'
    return launch.build_runner(cfg)


def train(
    work: Path,
    epochs: int = 3,
    resume: str | None = None,
    hook: Hook | None = None,
    force: bool = False,
    **options: Any,
) -> Runner:
    """Train as ``tools/train.py`` does.

    Args:
        work: The work folder.
        epochs: Of the whole training.
        resume: As ``--resume`` takes it.
        hook: One more.
        force: As ``--force``.
        **options: As for :func:`config`.

    Returns:
        The Runner.
    """
    cfg = config(work, epochs, **options)
    resuming.set_resume(cfg, resume)
    runner = build(cfg)
    if hook is not None:
        runner.register_hook(hook)
    running.train(runner, force)
    return runner


class StopHook(Hook):
    """Ends a training before an epoch, as an error in it does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


def fork(task: Callable[[], Any], log: Path) -> int:
    """Do something in a process of its own, without importing all once more.

    Args:
        task: What.
        log: What it prints.

    Returns:
        The number of the process; it exits with 0, 1 after an error.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # pytest has put something else into the place of the file descriptors.
        sys.stdout = sys.stderr = log.open('a', buffering=1)
        os.dup2(sys.stderr.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)
        status = errors.run(task)
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)
