"""Two training steps of many nets under DistributedDataParallel, one per line.

Started by torchrun with a JSON file of cases and a file for the results. A parameter
without gradient shows in the second step, so each net takes two.
"""

import gc
import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from torch.nn.parallel import DistributedDataParallel


class WithHead(torch.nn.Module):
    """Something to train behind a backbone that has nothing."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = torch.nn.ModuleList(
            torch.nn.Conv2d(channels, 1, 1) for channels in backbone.out_channels
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = self.backbone(x)
        return [head(y) for head, y in zip(self.heads, maps, strict=True)]


def steps(cfg: dict, find_unused: bool, size: tuple[int, int]) -> str:
    """Train two steps; say what went wrong, or nothing."""
    torch.manual_seed(0)
    net = MODELS.build(cfg)
    if not any(p.requires_grad for p in net.parameters()):
        net = WithHead(net)
    wrapped = DistributedDataParallel(
        net,
        find_unused_parameters=find_unused,
        gradient_as_bucket_view=True,  # a third less memory: one copy of the gradients
    )
    wrapped.train()  # where mmengine does it: behind the wrapping
    try:
        for step in range(2):
            torch.manual_seed(10 * step + dist.get_rank())
            outputs = wrapped(torch.rand(2, 3, *size))
            sum(output.square().mean() for output in outputs).backward()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    # The mean over the processes is the same number in each of them.
    total = sum(p.grad.double().sum() for p in net.parameters() if p.requires_grad)
    both = [torch.zeros_like(total) for _ in range(dist.get_world_size())]
    dist.all_gather(both, total)
    return '' if torch.equal(*both) else f'gradients differ: {both}'


def main() -> None:
    dist.init_process_group('gloo', timeout=timedelta(seconds=120))
    results = {}
    for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
        results[name] = steps(case['cfg'], case['find_unused'], tuple(case['size']))
        # A wrapped net refers to itself; without this the next ones stand beside it.
        gc.collect()
    if dist.get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
