"""A training of a fraction of a second with mmengine's real Runner and our hooks."""

from __future__ import annotations

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

from mmdet_backbones.engine import launch

__all__ = ['Hook', 'build', 'config']

ITERATIONS = 4


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

    def load_data_list(self) -> list[dict]:
        return [dict(number=number) for number in range(ITERATIONS * 2)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.rand(4, generator=generator))


@METRICS.register_module()
class TinyMetric(BaseMetric):
    """A metric that every epoch betters."""

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
    # Runners of one second have one name otherwise.
    cfg.experiment_name = f'tiny_{build.count}'
    build.count += 1
    return launch.build_runner(cfg)


build.count = 0
