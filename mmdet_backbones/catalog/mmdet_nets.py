"""mmdet's own backbones, as the configs of its model zoo build them.

Left out are those that one detector alone can use: SSDVGG, HourglassNet,
TridentResNet and the DetectoRS variants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Net:
    """A backbone of mmdet.

    Attributes:
        name: In the spirit of mmdet's metafiles.
        type: Name of the class.
        arguments: Of its constructor.
        weights: That mmdet's configs start from, or None.
        all_indices: Numbers of all levels, where the class returns fewer by default.
    """

    name: str
    type: str
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    all_indices: tuple[int, ...] = ()


_ZOO = 'https://download.openmmlab.com'
_CSPNEXT = f'{_ZOO}/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain'
_SWIN = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0'
_PVT = 'https://github.com/whai362/PVT/releases/download/v2'
_REGNETS = ('400mf', '800mf', '1.6gf', '3.2gf', '4.0gf', '6.4gf', '8.0gf', '12gf')
# Depth and width of YOLOX and RTMDet.
_SCALES = {
    'nano': (0.33, 0.25),
    'tiny': (0.33, 0.375),
    's': (0.33, 0.5),
    'm': (0.67, 0.75),
    'l': (1.0, 1.0),
    'x': (1.33, 1.25),
}


def _resnets() -> list[Net]:
    nets = [
        Net(
            f'ResNet-{depth}',
            'ResNet',
            dict(depth=depth),
            f'torchvision://resnet{depth}',
        )
        for depth in (18, 34, 50, 101, 152)
    ]
    for depth in (50, 101):
        nets.append(
            Net(
                f'ResNet-{depth}-Caffe',
                'ResNet',
                dict(depth=depth, style='caffe'),
                f'open-mmlab://detectron2/resnet{depth}_caffe',
            )
        )
    nets += [
        Net(f'ResNetV1d-{depth}', 'ResNetV1d', dict(depth=depth))
        for depth in (50, 101, 152)
    ]
    return nets


def _resnet_relatives() -> list[Net]:
    nets = []
    for depth, groups, width, weights in (
        (50, 32, 4, 'open-mmlab://resnext50_32x4d'),
        (101, 32, 4, 'open-mmlab://resnext101_32x4d'),
        (101, 64, 4, 'open-mmlab://resnext101_64x4d'),
        (101, 32, 8, 'open-mmlab://detectron2/resnext101_32x8d'),
    ):
        arguments = dict(depth=depth, groups=groups, base_width=width)
        name = f'ResNeXt-{depth}-{groups}x{width}d'
        nets.append(Net(name, 'ResNeXt', arguments, weights))
    for depth in (50, 101):
        arguments = dict(depth=depth, scales=4, base_width=26)
        known = 'open-mmlab://res2net101_v1d_26w_4s' if depth == 101 else None
        nets.append(Net(f'Res2Net-{depth}-v1d', 'Res2Net', arguments, known))
    for depth, stem in ((50, 64), (101, 128), (200, 128)):
        arguments = dict(
            depth=depth,
            stem_channels=stem,
            radix=2,
            reduction_factor=4,
            avg_down_stride=True,
        )
        nets.append(
            Net(
                f'ResNeSt-{depth}', 'ResNeSt', arguments, f'open-mmlab://resnest{depth}'
            )
        )
    for size in _REGNETS:
        arch = f'regnetx_{size}'
        name = f'RegNetX-{size.upper()}'
        nets.append(Net(name, 'RegNet', dict(arch=arch), f'open-mmlab://{arch}'))
    return nets


def _hrnet(width: int) -> Net:
    def stage(number: int, modules: int) -> dict[str, Any]:
        return dict(
            num_modules=modules,
            num_branches=number,
            block='BASIC',
            num_blocks=(4,) * number,
            num_channels=tuple(width * 2**i for i in range(number)),
        )

    first = dict(
        num_modules=1,
        num_branches=1,
        block='BOTTLENECK',
        num_blocks=(4,),
        num_channels=(64,),
    )
    extra = dict(stage1=first, stage2=stage(2, 1), stage3=stage(3, 4))
    extra['stage4'] = stage(4, 3)
    weights = f'open-mmlab://msra/hrnetv2_w{width}'
    return Net(f'HRNetV2p-W{width}', 'HRNet', dict(extra=extra), weights)


def _one_stage_nets() -> list[Net]:
    six, five = tuple(range(6)), tuple(range(5))
    nets = [Net('Darknet-53', 'Darknet', dict(depth=53), 'open-mmlab://darknet53', six)]
    for size, (deepen, widen) in _SCALES.items():
        arguments = dict(deepen_factor=deepen, widen_factor=widen)
        if size == 'nano':
            arguments['use_depthwise'] = True
        nets.append(Net(f'CSPDarknet-{size}', 'CSPDarknet', arguments, None, five))
    for size, (deepen, widen) in _SCALES.items():
        if size == 'nano':
            continue
        # RTMDet-tiny is shallower than YOLOX-tiny.
        deepen = 0.167 if size == 'tiny' else deepen
        arguments = dict(deepen_factor=deepen, widen_factor=widen)
        arguments |= dict(expand_ratio=0.5, channel_attention=True)
        known = size in ('tiny', 's')
        weights = f'{_CSPNEXT}/cspnext-{size}_imagenet_600e.pth' if known else None
        nets.append(Net(f'CSPNeXt-{size}', 'CSPNeXt', arguments, weights, five))
    weights = 'open-mmlab://mmdet/mobilenet_v2'
    nets.append(Net('MobileNetV2', 'MobileNetV2', {}, weights, tuple(range(8))))
    nets += [
        Net(f'EfficientNet-{a}', 'EfficientNet', dict(arch=a), None, tuple(range(7)))
        for a in ('b0', 'b1', 'b2', 'b3', 'b4', 'b5', 'b6', 'b7', 'es', 'em', 'el')
    ]
    return nets


def _swins() -> list[Net]:
    nets = []
    for name, width, deep, heads, window, file in (
        ('T', 96, 6, 3, 7, 'swin_tiny_patch4_window7_224'),
        ('S', 96, 18, 3, 7, 'swin_small_patch4_window7_224'),
        ('B', 128, 18, 4, 7, 'swin_base_patch4_window7_224'),
        ('L', 192, 18, 6, 12, 'swin_large_patch4_window12_384_22k'),
    ):
        arguments = dict(
            embed_dims=width,
            depths=(2, 2, deep, 2),
            num_heads=tuple(heads * 2**i for i in range(4)),
            window_size=window,
            convert_weights=True,
        )
        if window == 12:
            arguments['pretrain_img_size'] = 384
        nets.append(
            Net(f'Swin-{name}', 'SwinTransformer', arguments, f'{_SWIN}/{file}.pth')
        )
    return nets


def _pvts() -> list[Net]:
    nets = []
    for size, layers in (
        ('tiny', (2, 2, 2, 2)),
        ('small', (3, 4, 6, 3)),
        ('medium', (3, 4, 18, 3)),
        ('large', (3, 8, 27, 3)),
    ):
        arguments: dict[str, Any] = dict(num_layers=layers)
        weights = f'{_PVT}/pvt_{size}.pth'
        nets.append(Net(f'PVT-{size}', 'PyramidVisionTransformer', arguments, weights))
    for size, width, layers in (
        ('b0', 32, (2, 2, 2, 2)),
        ('b1', 64, (2, 2, 2, 2)),
        ('b2', 64, (3, 4, 6, 3)),
        ('b3', 64, (3, 4, 18, 3)),
        ('b4', 64, (3, 8, 27, 3)),
        ('b5', 64, (3, 6, 40, 3)),
    ):
        arguments = dict(embed_dims=width, num_layers=layers)
        if size == 'b5':
            arguments['mlp_ratios'] = (4, 4, 4, 4)
        weights = f'{_PVT}/pvt_v2_{size}.pth'
        nets.append(
            Net(f'PVTv2-{size}', 'PyramidVisionTransformerV2', arguments, weights)
        )
    return nets


NETS = (
    *_resnets(),
    *_resnet_relatives(),
    *(_hrnet(width) for width in (18, 32, 40)),
    *_one_stage_nets(),
    *_swins(),
    *_pvts(),
)
