"""Key names of ResNet and Res2Net in all sources."""

from __future__ import annotations

from .dialect import Dialect

DEEP_STEM_OF_TIMM = Dialect(
    'deep stem of the Res2Net authors and of timm',
    marker=r'conv1\.6\.',
    rules=((r'^stem\.7\.', 'bn1.'), (r'^stem\.(\d)\.', r'conv1.\1.')),
)


DEEP_STEM_OF_MMPRETRAIN = Dialect(
    'deep stem of mmpretrain',
    marker=r'stem\.0\.conv\.',
    rules=tuple(
        (rf'^stem\.{3 * i + offset}\.', f'stem.{i}.{layer}.')
        for i in range(3)
        for offset, layer in enumerate(('conv', 'bn'))
    ),
)


MMPRETRAIN = Dialect(
    'ResNet-D of mmpretrain',
    marker=DEEP_STEM_OF_MMPRETRAIN.marker,
    rules=(
        *DEEP_STEM_OF_MMPRETRAIN.rules,
        # The only shortcut with nothing to average, for which it has no place.
        (r'^(layer1\.0\.downsample)\.1\.', r'\1.0.'),
        (r'^(layer1\.0\.downsample)\.2\.', r'\1.1.'),
    ),
)


DETECTRON2 = Dialect(
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
