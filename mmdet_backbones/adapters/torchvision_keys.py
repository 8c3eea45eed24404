"""Key names of the checkpoints that people load into torchvision's nets."""

from __future__ import annotations

from ..weights.dialect import Dialect

ROOT = 'body.'
# Top-level parts of torchvision's nets that come after the last feature map. The
# classifier of SqueezeNet is convolutional and would pass for a feature map.
HEADS = ('classifier', 'fc', 'head', 'heads', 'aux1', 'aux2', 'AuxLogits')

TORCHVISION = Dialect(
    'torchvision',
    marker=rf'(?!{ROOT})',
    rules=(
        # Published files of DenseNet and ViT are older than the classes; torchvision
        # renames their keys while it loads them.
        (r'(denselayer\d+\.(?:norm|relu|conv))\.([12])\.', r'\1\2.'),
        (r'\.mlp\.linear_1\.', '.mlp.0.'),
        (r'\.mlp\.linear_2\.', '.mlp.3.'),
        (r'^', ROOT),
    ),
    heads=rf'(?:{"|".join(HEADS)})\.',
)
