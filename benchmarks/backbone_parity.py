"""Largest differences between our backbones and the same nets of other libraries.

Both get the same weights, through the checkpoint reader wherever ours has other names,
and the same synthetic images; batch normalisation runs in eval and in train mode.
  python benchmarks/backbone_parity.py -o benchmarks/backbone_parity.md
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from mmdet.registry import MODELS
from rich.progress import track
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from mmdet_backbones.backbones.residual.res2net import VARIANTS as RES2NETS
from mmdet_backbones.backbones.residual.resnet import VARIANTS as RESNETS
from mmdet_backbones.weights import load_pretrained

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'helpers'))
from parity import randomise

Case = tuple[str, str, nn.Module, Callable, nn.Module]
DEEP = dict(deep_stem=True, avg_down=True)
SIZE = (64, 96)
TIMM_RES2NETS = {
    **{n: n for n in RES2NETS if not n.endswith(('v1b', 'v1d')) and '152' not in n},
    'res2net50d': 'res2net50_v1b',
    'res2net101d': 'res2net101_v1b',
}
TIMM_RESNETS = {
    'resnet50': 'resnet50',
    'resnet50d': 'resnet50_d',
    'resnext50_32x4d': 'resnext50_32x4d',
}
TORCHVISION_RESNETS = ('resnet18', 'resnet34', 'resnet50', 'resnet101')
TIMM_ADAPTED = ('tf_efficientnet_lite0', 'convnext_atto', 'mobilenetv2_100', 'vgg11_bn')
TORCHVISION_ADAPTED = {
    'resnet18': ['layer2', 'layer3', 'layer4'],
    'vgg16_bn': ['features.42'],
    'efficientnet_b0': ['features.3', 'features.5', 'features.8'],
    'mobilenet_v3_large': ['features.6', 'features.12', 'features.16'],
}
MMPRETRAIN_ADAPTED = {
    'ShuffleNetV2': (dict(widen_factor=1.0), (0, 1, 2)),
    'MobileNetV2': (dict(widen_factor=1.0), (2, 4, 6)),
    'MobileNetV3': (dict(arch='small'), (3, 8, 11)),
    'SwinTransformer': (dict(arch='tiny'), (1, 2, 3)),
    'ConvNeXt': (dict(arch='tiny'), (1, 2, 3)),
}


def build(kind: str, **arguments: Any) -> nn.Module:
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments))


def of_timm() -> Iterator[Case]:
    for table, kind, variants in (
        (TIMM_RES2NETS, 'Res2Net', RES2NETS),
        (TIMM_RESNETS, 'ResNet', RESNETS),
    ):
        for theirs, ours in table.items():
            host = timm.create_model(theirs)
            yield (
                'timm',
                theirs,
                host,
                _intermediates(host),
                build(kind, norm_eval=False, **variants[ours]),
            )
    for name in TIMM_ADAPTED:
        ours = build('TIMMBackbone', model_name=name, drop_path_rate=None)
        host = timm.create_model(name, features_only=True, out_indices=ours.out_indices)
        yield 'timm', f'{name} (TIMMBackbone)', host, host, ours


def _intermediates(host: nn.Module) -> Callable:
    def features(x: torch.Tensor) -> Any:
        return host.forward_intermediates(
            x, indices=[1, 2, 3, 4], intermediates_only=True
        )

    return features


def of_torchvision() -> Iterator[Case]:
    stages = ['layer1', 'layer2', 'layer3', 'layer4']
    for name in TORCHVISION_RESNETS:
        host = create_feature_extractor(torchvision.models.get_model(name), stages)
        yield (
            'torchvision',
            name,
            host,
            _values(host),
            build('ResNet', norm_eval=False, **RESNETS[name]),
        )
    for name, nodes in TORCHVISION_ADAPTED.items():
        host = create_feature_extractor(torchvision.models.get_model(name), nodes)
        ours = build('TorchvisionBackbone', model_name=name, return_nodes=nodes)
        yield 'torchvision', f'{name} (TorchvisionBackbone)', host, _values(host), ours


def _values(host: nn.Module) -> Callable:
    return lambda x: list(host(x).values())


def of_mmpretrain() -> Iterator[Case]:
    backbones = import_module('mmpretrain.models.backbones')
    for arguments in (
        dict(depth=50),
        dict(depth=101),
        dict(depth=50, base_width=14, scales=8, deep_stem=False, avg_down=False),
    ):
        host = backbones.Res2Net(out_indices=(0, 1, 2, 3), **arguments)
        ours = build('Res2Net', norm_eval=False, **{**DEEP, **arguments})
        yield 'mmpretrain', f'Res2Net {_written(arguments)}', host, host, ours
    for kind, (arguments, indices) in MMPRETRAIN_ADAPTED.items():
        extra = dict(pad_small_map=True) if kind == 'SwinTransformer' else {}
        extra |= dict(gap_before_final_norm=False) if kind == 'ConvNeXt' else {}
        host = getattr(backbones, kind)(out_indices=indices, **arguments, **extra)
        ours = build(kind, out_indices=indices, **arguments)
        yield 'mmpretrain', f'{kind} {_written(arguments)}', host, host, ours


def of_mmdet() -> Iterator[Case]:
    backbones = import_module('mmdet.models.backbones')
    for depth in (50, 101):
        host = backbones.Res2Net(depth=depth, norm_eval=False)
        ours = build(
            'Res2Net', depth=depth, norm_eval=False, pool_at_stride_1=False, **DEEP
        )
        yield 'mmdet', f'Res2Net depth={depth}', host, host, ours
    dilated = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    for theirs, arguments in (
        (dict(depth=18), dict(depth=18)),
        (dict(depth=50), dict(depth=50)),
        (dict(depth=50, style='caffe'), dict(depth=50, stride_in_1x1=True)),
        (dict(depth=50, **dilated), dict(depth=50, **dilated)),
    ):
        host = backbones.ResNet(norm_eval=False, **theirs)
        ours = build('ResNet', norm_eval=False, **arguments)
        yield 'mmdet', f'ResNet {_written(theirs)}', host, host, ours


def _written(arguments: dict[str, Any]) -> str:
    return ', '.join(f'{name}={value}' for name, value in arguments.items())


def compare(host: nn.Module, features: Callable, ours: nn.Module) -> dict[str, float]:
    """Largest differences of the maps of all levels, absolute and relative."""
    randomise(host)
    with tempfile.TemporaryDirectory() as folder:
        _transfer(host, ours, Path(folder) / 'weights.pth')
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    worst = dict(eval=0.0, train=0.0, relative=0.0)
    for mode in ('eval', 'train'):
        host.train(mode == 'train')
        ours.train(mode == 'train')
        maps = []
        for net in (features, ours):
            torch.manual_seed(2)  # the same stochastic depth in both
            with torch.no_grad():
                maps.append(list(net(x)))
        theirs, mine = maps
        theirs = theirs[-len(mine) :]
        for a, b in zip(theirs, mine, strict=True):
            difference = float((a - b).abs().max())
            worst[mode] = max(worst[mode], difference)
            worst['relative'] = max(
                worst['relative'], difference / float(a.abs().max())
            )
    return worst


def _transfer(host: nn.Module, ours: nn.Module, path: Path) -> None:
    inner = getattr(ours, 'timm_model', None) or getattr(ours, 'body', None)
    if inner is not None and inner.state_dict().keys() == host.state_dict().keys():
        inner.load_state_dict(host.state_dict())
    else:
        # What ours leave out, such as tails that no level needs, is in the file.
        torch.save(host.state_dict(), path)
        load_pretrained(ours, str(path), min_coverage=1.0)


def report(rows: list[tuple[str, str, dict[str, float]]]) -> str:
    """Write the table."""
    names = ('torch', 'torchvision', 'timm', 'mmpretrain', 'mmdet')
    found = ', '.join(f'{name} {_version(name)}' for name in names)
    worst = max(row[2]['relative'] for row in rows)
    lines = [
        '# Our backbones against the same nets of other libraries',
        '',
        f'{found}; Python {platform.python_version()}, CPU, float32, random weights,',
        f'synthetic images (2, 3, {SIZE[0]}, {SIZE[1]}). Made by',
        '`python benchmarks/backbone_parity.py`.',
        '',
        f'{len(rows)} nets; the largest difference is {worst:.1e} of the largest',
        'activation of its map.',
        '',
        '| library | net | largest absolute difference, eval | train | relative |',
        '|---|---|---|---|---|',
    ]
    for library, name, worst_of in rows:
        figures = ' | '.join(
            f'{worst_of[k]:.1e}' for k in ('eval', 'train', 'relative')
        )
        lines.append(f'| {library} | {name} | {figures} |')
    return '\n'.join(lines) + '\n'


def _version(name: str) -> str:
    for candidate in (name, f'onedl-{name}', 'onedl-mmdetection'):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return 'unknown'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-o', '--out', type=Path, help='write the table to this file')
    args = parser.parse_args()
    rows = []
    for source in (of_timm, of_torchvision, of_mmpretrain, of_mmdet):
        for library, name, host, features, ours in track(
            source(), description=source.__name__.removeprefix('of_')
        ):
            rows.append((library, name, compare(host, features, ours)))
    text = report(rows)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
