"""What fully sharded training of detectors needs beside mmengine's strategy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.optim import OptimWrapper
from torch import nn


def wrap_classes(
    module: nn.Module, recurse: bool, nonwrapped_numel: int, names: Sequence[str]
) -> bool:
    """Shard every module of the named classes on its own.

    For ``auto_wrap_policy`` of mmengine's ``MMFullyShardedDataParallel``. Blocks of a
    backbone are fit for it. Heads are not: mmdet calls their losses without their
    ``forward``, where their weights would be gathered. torch's policy by size takes
    heads as well.

    Args:
        module: Part of the detector.
        recurse: Whether this is about the parts of the module.
        nonwrapped_numel: Parameters of the module that no part of it has taken.
        names: Names of classes.

    Returns:
        Whether to look into the module, or to shard it on its own.
    """
    return recurse or (nonwrapped_numel > 0 and type(module).__name__ in names)


class ShardedOptimWrapper(OptimWrapper):
    """Clip gradients by their norm over all processes, each of which has a share.

    mmengine's ``OptimWrapper`` takes the norm of the share of its own process, so that
    every process clips by another factor. Arguments are those of ``OptimWrapper``. A
    config names it by its whole path, with the module.
    """

    def _clip_grad(self) -> None:
        if self.clip_func is not nn.utils.clip_grad_norm_:
            super()._clip_grad()
            return
        limit = float(self.clip_grad_kwargs['max_norm'])
        power = float(self.clip_grad_kwargs.get('norm_type', 2.0))
        groups = self.optimizer.param_groups
        parameters = [p for group in groups for p in group['params']]
        gradients = [p.grad for p in parameters if p.grad is not None]
        # Every process takes part, also one without any gradient.
        norms = [torch.linalg.vector_norm(g, power) for g in gradients if g.numel()]
        device = parameters[0].device
        own = torch.stack([torch.zeros((), device=device), *norms])
        if power == float('inf'):
            total = own.max()
            all_reduce(total, 'max')
        else:
            total = own.pow(power).sum()
            all_reduce(total, 'sum')
            total = total.pow(1 / power)
        factor = (limit / (total + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        self.message_hub.update_scalar('train/grad_norm', float(total))
