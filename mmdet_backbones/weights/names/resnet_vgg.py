"""Key names of ResNet, Res2Net and VGG in all sources."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from .dialect import Dialect, backwards


def _block_of_paddle(stage: int, found: re.Match[str]) -> str:
    block = found[1]
    number = int(block[1:]) if block[1:] else ord(block) - ord('a')
    return f'res_layers.{stage - 2}.blocks.{number}.'


_DEEP_STEM_OF_TIMM = Dialect(
    'deep stem of the Res2Net authors and of timm',
    marker=r'conv1\.6\.',
    rules=((r'^stem\.7\.', 'bn1.'), (r'^stem\.(\d)\.', r'conv1.\1.')),
)
_DEEP_STEM_OF_MMPRETRAIN = Dialect(
    'deep stem of mmpretrain',
    marker=r'stem\.0\.conv\.',
    rules=tuple(
        (rf'^stem\.{3 * i + offset}\.', f'stem.{i}.{layer}.')
        for i in range(3)
        for offset, layer in enumerate(('conv', 'bn'))
    ),
)
_MMPRETRAIN = Dialect(
    'ResNet-D of mmpretrain',
    marker=_DEEP_STEM_OF_MMPRETRAIN.marker,
    rules=(
        *_DEEP_STEM_OF_MMPRETRAIN.rules,
        # The only shortcut with nothing to average, for which it has no place.
        (r'^(layer1\.0\.downsample)\.1\.', r'\1.0.'),
        (r'^(layer1\.0\.downsample)\.2\.', r'\1.1.'),
    ),
)
# From timm's names, as those that follow are for.
_DEEP_STEM_OF_MMDET = Dialect(
    'deep stem of mmdet',
    marker=r'stem\.[36]\.',
    rules=((r'^bn1\.', 'stem.7.'), (r'^conv1\.(\d)\.', r'stem.\1.')),
)
_MMPRETRAIN_OF_TIMM = replace(
    _MMPRETRAIN, rules=(*_DEEP_STEM_OF_MMDET.rules, *_MMPRETRAIN.rules)
)
_DETECTRON2 = Dialect(
    'detectron2',
    marker=r'(?:bottom_up\.)?(?:stem\.conv1|res2\.0\.conv1)\.',
    rules=(
        (r'\.downsample\.0\.', '.shortcut.'),
        (r'\.downsample\.1\.', '.shortcut.norm.'),
        (r'\.conv2\.conv_offset\.', '.conv2_offset.'),
        (r'(^|\.)(?:bn|gn)(\d)\.', r'\1conv\2.norm.'),
        (r'^conv1\.', 'stem.conv1.'),
        *((rf'^layer{i}\.', f'res{i + 1}.') for i in range(1, 6)),
    ),
    older=((r'^bottom_up\.', ''),),
    # Its detectors keep the neck inside the backbone.
    heads=r'(?:bottom_up\.)?(?:linear|fpn_\w+|top_block)\.',
)
_TRANSFORMERS = Dialect(
    'ResNet of transformers',
    marker=r'(?:resnet\.)?embedder\.embedder\.convolution\.',
    rules=(
        *(
            (rf'^(layer\d\..+)\.{part}{i}\.', rf'\1.layer.{i - 1}.{name}.')
            for i in (1, 2, 3)
            for part, name in (('conv', 'convolution'), ('bn', 'normalization'))
        ),
        (r'\.downsample\.0\.', '.shortcut.convolution.'),
        (r'\.downsample\.1\.', '.shortcut.normalization.'),
        *((rf'^layer{i}\.', f'encoder.stages.{i - 1}.layers.') for i in (1, 2, 3, 4)),
        (r'^conv1\.', 'embedder.embedder.convolution.'),
        (r'^bn1\.', 'embedder.embedder.normalization.'),
    ),
    heads=r'(?:classifier|pooler)\.',
)

_SHORTCUTS = (
    # Only a stride has something to average before the convolution.
    (r'^(layer1\..*)\.downsample\.1\.', r'\1.short.conv.'),
    (r'^(layer1\..*)\.downsample\.2\.', r'\1.short.norm.'),
    (r'\.downsample\.1\.', '.short.conv.conv.'),
    (r'\.downsample\.2\.', '.short.conv.norm.'),
)
_RTDETR = Dialect(
    'ResNet-D of RT-DETR and PaddleDetection',
    marker=r'conv1\.conv1_1\.(?:conv|norm)\.',
    rules=(
        *_SHORTCUTS,
        *(
            (rf'^(layer\d\..+)\.{part}{i}\.', rf'\1.branch2{"abc"[i - 1]}.{name}.')
            for i in (1, 2, 3)
            for part, name in (('conv', 'conv'), ('bn', 'norm'))
        ),
        *(
            (rf'^layer{i}\.(\d+)\.', rf'res_layers.{i - 1}.blocks.\1.')
            for i in (1, 2, 3, 4)
        ),
        (r'^bn1\.', 'conv1.conv1_3.norm.'),
        *(
            (rf'^conv1\.{3 * i + offset}\.', f'conv1.conv1_{i + 1}.{name}.')
            for i in range(3)
            for offset, name in enumerate(('conv', 'norm'))
        ),
    ),
    older=(
        # PaddleDetection counts `res4a`, `res4b`, or `res4a`, `res4b1` in deep nets.
        *(
            (rf'^res{i}\.res{i}(\w+)\.', partial(_block_of_paddle, i))
            for i in (2, 3, 4, 5)
        ),
        (r'\._mean$', '.running_mean'),
        (r'\._variance$', '.running_var'),
    ),
)
_RTDETR_TRANSFORMERS = Dialect(
    'ResNet-D of RT-DETR in transformers',
    marker=r'embedder\.embedder\.0\.convolution\.',
    rules=(
        (r'^(layer1\..*)\.downsample\.1\.', r'\1.shortcut.convolution.'),
        (r'^(layer1\..*)\.downsample\.2\.', r'\1.shortcut.normalization.'),
        (r'\.downsample\.1\.', '.shortcut.1.convolution.'),
        (r'\.downsample\.2\.', '.shortcut.1.normalization.'),
        *(
            (rf'^(layer\d\..+)\.{part}{i}\.', rf'\1.layer.{i - 1}.{name}.')
            for i in (1, 2, 3)
            for part, name in (('conv', 'convolution'), ('bn', 'normalization'))
        ),
        *((rf'^layer{i}\.', f'encoder.stages.{i - 1}.layers.') for i in (1, 2, 3, 4)),
        (r'^bn1\.', 'embedder.embedder.2.normalization.'),
        *(
            (rf'^conv1\.{3 * i + offset}\.', f'embedder.embedder.{i}.{name}.')
            for i in range(3)
            for offset, name in enumerate(('convolution', 'normalization'))
        ),
    ),
)

_VGG_LAYER = re.compile(r'features\.(\d+)\.(conv|bn)\.(\w+)$')


def _count_layers(keys: Collection[str]) -> dict[str, str]:
    """Count layers one by one, as torchvision does, not blocks of a convolution."""
    matches = {key: m for key in keys if (m := _VGG_LAYER.match(key))}
    blocks = {int(m[1]) for m in matches.values()}
    # A convolution and its activation, with a normalisation between them or not.
    step = 3 if any(m[2] == 'bn' for m in matches.values()) else 2
    first, starts = 0, {}
    for block in range(max(blocks, default=-1) + 1):
        starts[block] = first
        # A number without parameters is a pooling.
        first += step if block in blocks else 1
    return {
        key: f'features.{starts[int(m[1])] + (m[2] == "bn")}.{m[3]}'
        for key, m in matches.items()
    }


_VGG_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'VGG of torchvision and timm',
    marker=r'features\.0\.weight$',
    renumber=_count_layers,
    heads=r'(?:classifier|pre_logits|head)\.',
)
# The text detector CRAFT cuts torchvision's VGG16-BN into four slices; a fifth one
# holds layers of its own.
_CRAFT = Dialect(
    'VGG16-BN of CRAFT',
    marker=r'basenet\.slice1\.0\.',
    older=((r'^basenet\.slice[1-4]\.', 'features.'),),
)
_VGG_OF_MMPRETRAIN = backwards(
    _VGG_MMPRETRAIN_TO_TORCHVISION, 'VGG of mmpretrain', r'features\.0\.conv\.'
)

# Which checkpoints go into our own nets and into those of each library.
RESNET = (
    _DEEP_STEM_OF_TIMM,
    _MMPRETRAIN,
    _DETECTRON2,
    _TRANSFORMERS,
    _RTDETR.on(_DEEP_STEM_OF_TIMM),
    _RTDETR_TRANSFORMERS.on(_DEEP_STEM_OF_TIMM),
)
RES2NET = (_DEEP_STEM_OF_TIMM, _DEEP_STEM_OF_MMPRETRAIN)
INTO_TORCHVISION = (_TRANSFORMERS, _DETECTRON2, _CRAFT, _VGG_OF_MMPRETRAIN)
INTO_TIMM = (
    *INTO_TORCHVISION,
    _RTDETR,
    _RTDETR_TRANSFORMERS,
    _DEEP_STEM_OF_MMDET,
    _MMPRETRAIN_OF_TIMM,
)
INTO_MMPRETRAIN = (
    _VGG_MMPRETRAIN_TO_TORCHVISION,
    replace(_CRAFT, renumber=_count_layers),
    _TRANSFORMERS,
)
