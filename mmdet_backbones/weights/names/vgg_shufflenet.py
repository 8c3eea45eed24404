"""Key names of VGG and ShuffleNetV2, from one source to the next."""

from __future__ import annotations

import re
from collections.abc import Collection

from .dialect import Dialect

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


VGG_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'VGG of torchvision and timm',
    marker=r'features\.0\.weight$',
    renumber=_count_layers,
    heads=r'(?:classifier|pre_logits|head)\.',
)
# The text detector CRAFT cuts torchvision's VGG16-BN into four slices; a fifth one
# holds layers of its own.
_CRAFT = r'basenet\.slice1\.0\.'
_SLICES = ((r'^basenet\.slice[1-4]\.', 'features.'),)
CRAFT = Dialect('VGG16-BN of CRAFT', marker=_CRAFT, older=_SLICES)
CRAFT_OF_MMPRETRAIN = Dialect(
    'VGG16-BN of CRAFT', marker=_CRAFT, older=_SLICES, renumber=_count_layers
)

SHUFFLENET_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'ShuffleNetV2 of torchvision',
    marker=r'stage2\.0\.branch1\.0\.',
    rules=(
        *(
            (rf'\.{branch}\.{i}\.{kind}\.', f'.{branch}.{first + offset}.')
            for branch, firsts in (('branch1', (0, 2)), ('branch2', (0, 3, 5)))
            for i, first in enumerate(firsts)
            for offset, kind in enumerate(('conv', 'bn'))
        ),
        *((rf'^layers\.{i}\.(\d)', rf'stage{i + 2}.\1') for i in range(3)),
        (r'^(conv1|layers\.3)\.conv\.', r'\1.0.'),
        (r'^(conv1|layers\.3)\.bn\.', r'\1.1.'),
        (r'^layers\.3\.', 'conv5.'),
    ),
)
