"""A training of one number, with the Runner and hooks of a real one."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Ill(torch.autograd.Function):
    """Pass a value on, and NaN back."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.nan


class Toy(BaseModel):
    """Fails as its data say: ``nan`` and ``inf`` losses, ``ill`` gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, inputs: list[str], mode: str = 'loss') -> Any:
        loss = self.weight.square().sum()
        if 'ill' in inputs:
            loss = Ill.apply(loss)
        factor = next((float(i) for i in inputs if i in ('nan', 'inf')), 1.0)
        return dict(loss_cls=loss, loss_bbox=loss * factor)


class Told(Dataset):
    """What happens in each iteration, in words."""

    metainfo: dict = {}

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, str]:
        if self.words[index] == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(inputs=self.words[index])


def toy_runner(
    work_dir: Any, words: list[str], workers: int = 0, **settings: Any
) -> Runner:
    """Build a runner that saves after every iteration."""
    loader = dict(
        dataset=Told(words),
        batch_size=1,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    optimizer = dict(type='SGD', lr=0.1)
    keeping = dict(type='CheckpointHook', interval=1, by_epoch=False)
    return Runner(
        **{
            'model': Toy(),
            'work_dir': str(work_dir),
            'train_dataloader': loader,
            'train_cfg': dict(by_epoch=False, max_iters=len(words)),
            'optim_wrapper': dict(optimizer=optimizer),
            'default_hooks': dict(checkpoint=keeping),
            'log_level': 'ERROR',
            'experiment_name': f'toy_{os.path.basename(work_dir)}_{os.getpid()}',
            'custom_hooks': [dict(type='mmdet_backbones.DivergenceHook')],
            **settings,
        }
    )
