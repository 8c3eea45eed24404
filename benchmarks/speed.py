"""Speed of our nets against those they replace, on one CPU thread.

  python benchmarks/speed.py [res2net] [adapters] [--rounds 7] [-o speed.md]

Random weights from seed 0, equal for all who are compared; synthetic images. Each round
runs everybody once, each round in another order, in one process and one thread;
figures are medians. A ratio is the median over the rounds of the first net's time
divided by this one's, so that a machine that slows down slows both.

`res2net`: Res2Net-50 of ours, of timm and of mmdet, inference of one image of 640 x 640
and a training step (forward and backward, batch statistics) of two of 320 x 320.
mmdet's net leaves the pool of a stage's first block out: only timm's has our numbers.
`adapters`: an adapter against the bare model inside it, 224 x 224.
The peak is that of a product of two 2048 x 2048 matrices in the same process.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.inference.fusion import fuse_for_inference
from mmdet_backbones.registry import MODELS
from mmdet_backbones.speed.memory import peak_memory
from mmdet_backbones.speed.nets import PreparedNet, Settings, count_flops
from mmdet_backbones.speed.timing import time_rounds

CHANNELS_LAST = torch.channels_last
INFERENCE = (1, 640)
TRAINING = (2, 320)
RES2NETS = ('res2net50_26w_4s', 'res2net50_26w_6s')


def images(batch: int, side: int, last: bool = False) -> Tensor:
    found = torch.randn(
        batch, 3, side, side, generator=torch.Generator().manual_seed(0)
    )
    return found.contiguous(memory_format=CHANNELS_LAST) if last else found


def inference(name: str, net: nn.Module, x: Tensor) -> PreparedNet:
    def step() -> Any:
        with torch.inference_mode():
            return net(x)

    net.eval()
    return PreparedNet(name, net, step)


def training(name: str, net: nn.Module, x: Tensor) -> PreparedNet:
    def step() -> None:
        net.zero_grad(set_to_none=True)
        sum(level.mean() for level in net(x)).backward()

    net.train()
    return PreparedNet(name, net, step)


def rows(
    subjects: Sequence[PreparedNet], batch: int, rounds: int
) -> list[tuple[str, float, float, float]]:
    """Name, median milliseconds, ratio, and billions of operations per second."""
    times = time_rounds(subjects, Settings(batch=batch, rounds=rounds))
    found = []
    for net, seconds in zip(subjects, times, strict=True):
        middle = statistics.median(seconds)
        flops = batch * count_flops(net, Settings(batch=batch))
        ratio = statistics.median(a / b for a, b in zip(times[0], seconds, strict=True))
        found.append((net.name, 1000 * middle, ratio, flops / middle / 1e9))
    return found


def table(found: Sequence[tuple[str, float, float, float]], peak: float) -> list[str]:
    return [
        '| net | ms | first / this | GFLOP/s | of the peak |',
        '|---|---|---|---|---|',
        *(
            f'| {name} | {ms:.1f} | {ratio:.2f} | {rate:.1f} | {rate / peak:.0%} |'
            for name, ms, ratio, rate in found
        ),
        '',
    ]


def matrix_peak() -> float:
    """Billions of operations per second of a matrix product, the best of ten."""
    a = torch.randn(2048, 2048)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


def res2nets(name: str) -> tuple[nn.Module, nn.Module, Callable[[], nn.Module]]:
    """timm's net, mmdet's, and what makes ours with the weights of timm's."""
    import timm
    from mmdet.models.backbones import Res2Net as HostRes2Net

    from mmdet_backbones.catalog import resolve
    from mmdet_backbones.weights.loading.loader import load_checkpoint
    from mmdet_backbones.weights.reading.reader import Checkpoint

    torch.manual_seed(0)
    peer = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4))
    scales = int(name[-2])
    host = HostRes2Net(
        depth=50, scales=scales, base_width=26, deep_stem=False, avg_down=False,
        norm_eval=False,
    )  # fmt: skip

    def ours() -> nn.Module:
        net: Any = MODELS.build({**resolve(name), 'norm_eval': False})
        load_checkpoint(net, Checkpoint(dict(peer.state_dict()), f'timm {name}'))
        return net

    return peer, host, ours


def res2net(rounds: int, peak: float) -> list[str]:
    lines = ['## Res2Net', '']
    for name in RES2NETS:
        peer, host, ours = res2nets(name)
        x, last = images(*INFERENCE), images(*INFERENCE, last=True)
        ready = ours().to(memory_format=CHANNELS_LAST)
        fast = fuse_for_inference(ready)
        compiled = fuse_for_inference(ready, compile=True)
        subjects = [
            inference('timm', peer, x),
            inference('mmdet', host, x),
            inference('ours', ours(), x),
            inference('ours, channels-last', ready, last),
            inference('ours, channels-last, folded', fast, last),
            inference('ours, channels-last, folded, compiled', compiled, last),
        ]
        expected, found = subjects[0].step(), subjects[4].step()
        lines += [f'### {name}, inference', '']
        lines += table(rows(subjects, INFERENCE[0], rounds), peak)
        lines += [f'{difference(expected, found)}, folded against timm.', '']
        lines += [f'### {name}, training step', '']
        x, last = images(*TRAINING), images(*TRAINING, last=True)
        subjects = [
            training('timm', peer, x),
            training('mmdet', host, x),
            training('ours', ours(), x),
            training(
                'ours, channels-last', ours().to(memory_format=CHANNELS_LAST), last
            ),
        ]
        nets = [subjects[0].net.train(), subjects[3].net.train()]
        with torch.no_grad():
            difference_text = difference(nets[0](x), nets[1](last))
        lines += table(rows(subjects, TRAINING[0], rounds), peak)
        lines += [f'{difference_text}, channels-last in train mode against timm.', '']
        lines += [f'{memory(name)}', '']
    return lines


def difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> str:
    largest = max(
        float((a - b).abs().max() / a.abs().max())
        for a, b in zip(expected, found, strict=True)
    )
    return f'Largest difference {largest:.1e} of the largest activation'


def memory(name: str) -> str:
    parts = []
    for text, train, (batch, side) in (
        ('inference', False, INFERENCE),
        ('training step', True, TRAINING),
    ):
        plain = Settings(size=(side, side), batch=batch, train=train)
        ours = Settings(
            size=(side, side), batch=batch, train=train, channels_last=True,
            fuse=not train,
        )  # fmt: skip
        peer, own = peak_memory(f'timm/{name}', plain), peak_memory(name, ours)
        parts.append(
            f'{text} timm {peer / 2**20:.0f} MiB, ours {own / 2**20:.0f} MiB '
            f'({own / peer:.2f})'
        )
    return f'Peak memory: {"; ".join(parts)}.'


def adapters(rounds: int, peak: float) -> list[str]:
    import timm
    from mmdet.models.backbones import ResNet as HostResNet
    from mmpretrain.models.backbones import ShuffleNetV2
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = ['layer1', 'layer2', 'layer3', 'layer4']
    pairs: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        'timm/resnet18': (
            timm.create_model('resnet18', features_only=True, out_indices=(1, 2, 3, 4)),
            dict(type='TIMMBackbone', model_name='resnet18', out_indices=(1, 2, 3, 4)),
        ),
        'timm/convnext_atto': (
            timm.create_model('convnext_atto', features_only=True),
            dict(type='TIMMBackbone', model_name='convnext_atto'),
        ),
        'torchvision/resnet18': (
            create_feature_extractor(models.resnet18(), nodes),
            dict(type='TorchvisionBackbone', model_name='resnet18',
                 return_nodes=nodes),
        ),
        'mmpretrain ShuffleNetV2': (
            ShuffleNetV2(out_indices=(0, 1, 2, 3)),
            dict(type='ShuffleNetV2', out_indices=(0, 1, 2, 3)),
        ),
        'mmdet ResNet-18': (HostResNet(18), dict(type='ResNet', depth=18)),
    }  # fmt: skip
    lines = ['## Adapters', '', '| net | bare ms | adapter ms | adapter / bare |']
    lines += ['|---|---|---|---|']
    x = images(1, 224)
    for name, (bare, cfg) in pairs.items():
        net = MODELS.build(dict(cfg))
        subjects = [inference('bare', bare, x), inference('adapter', net, x)]
        times = time_rounds(subjects, Settings(rounds=20 * rounds))
        a, b = (1000 * statistics.median(t) for t in times)
        ratio = statistics.median(q / p for p, q in zip(*times, strict=True))
        lines.append(f'| {name} | {a:.2f} | {b:.2f} | {ratio:.3f} |')
    return [*lines, '']


PARTS = dict(res2net=res2net, adapters=adapters)


def report(
    title: str, parts: dict[str, Callable[[int, float], list[str]]], description: str
) -> None:
    """Run what the command line names and write the page."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('parts', nargs='*', help=f'of {", ".join(parts)}; all')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    MODELS.import_from_location()
    peak = matrix_peak()
    lines = []
    for name in args.parts or parts:
        print(f'{name} ...', file=sys.stderr, flush=True)
        lines += parts[name](args.rounds, peak)
    head = [
        f'# {title}',
        '',
        f'torch {version("torch")}, timm {version("timm")}, Python '
        f'{platform.python_version()}, one thread, medians of {args.rounds} rounds, '
        f'matrix product {peak:.0f} GFLOP/s, load average meanwhile '
        f'{os.getloadavg()[1]:.1f}. Written by `benchmarks/{Path(sys.argv[0]).name}`, '
        'which says what is measured.',
        '',
    ]
    text = '\n'.join(head + lines)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    report('Speed of backbones', PARTS, str(__doc__))
