"""What runs on several processes leave behind to be compared."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS


@HOOKS.register_module()
class RecordHook(Hook):
    """Keep the losses of every iteration and the parameters after the last one.

    ``work_dir/record.pth`` holds ``losses``, a dict per iteration with the means over
    the processes, and ``parameters`` by name.
    """

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Take the mean over the processes: every one has losses of its own."""
        names = [name for name in outputs if 'loss' in name]
        values = torch.stack([outputs[name].detach().double() for name in names])
        if dist.is_initialized():
            dist.all_reduce(values)
            values /= dist.get_world_size()
        self.losses.append(dict(zip(names, values.tolist(), strict=True)))

    def after_train(self, runner):
        if not is_main_process():
            return
        model = getattr(runner.model, 'module', runner.model)
        parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
        torch.save(
            dict(
                losses=self.losses,
                parameters=parameters,
                lr=runner.optim_wrapper.param_groups[0]['lr'],
                wrapper=type(runner.model).__name__,
                find_unused=getattr(runner.model, 'find_unused_parameters', None),
            ),
            Path(runner.work_dir) / 'record.pth',
        )


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Stands in for ``AmpOptimWrapper`` where there is no GPU.

    The detector runs in mixed precision as there. It has bfloat16 and no scaling of
    the loss, which that type does not need.
    """

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
