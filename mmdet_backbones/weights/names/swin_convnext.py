"""Key names of Swin and ConvNeXt, from one source to the next.

Each table leads from the first source in its name to the second; read backwards it
brings checkpoints of the first into nets of the second.
"""

from __future__ import annotations

from torch import Tensor

from .dialect import Dialect, Form


def _to_unfolded(x: Tensor) -> Tensor:
    """Order the four neighbours of a merged patch as ``nn.Unfold`` does.

    The authors concatenate the cells (row, column) (0, 0), (1, 0), (0, 1), (1, 1), all
    channels of one cell after those of the other. mmpretrain unfolds: the cells of one
    channel, row by row, before those of the next channel.
    """
    cells = x.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
    return cells.transpose(-1, -2).flatten(-2)


def _from_unfolded(x: Tensor) -> Tensor:
    cells = x.unflatten(-1, (-1, 4)).transpose(-1, -2)
    return cells[..., [0, 2, 1, 3], :].flatten(-2)


_MERGED = (
    Form(
        r'^stages\.\d\.downsample\.(?:norm\.|reduction\.)', _to_unfolded, _from_unfolded
    ),
)
_SWIN_LAYERS = (
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'^norm3\.', 'norm.'),
)

SWIN_MMPRETRAIN_TO_AUTHORS = Dialect(
    'Swin of its authors',
    marker=r'layers\.0\.downsample\.',
    rules=(
        (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
        *_SWIN_LAYERS,
        (r'^stages\.', 'layers.'),
    ),
    forms=_MERGED,
    heads=r'(?:head|norm)\.',
)
SWIN_MMPRETRAIN_TO_TIMM = Dialect(
    'Swin of timm',
    marker=r'layers\.3\.downsample\.',
    rules=(
        (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
        *_SWIN_LAYERS,
        *(
            (rf'^stages\.{i}\.downsample\.', f'layers.{i + 1}.downsample.')
            for i in range(3)
        ),
        (r'^stages\.', 'layers.'),
    ),
    forms=_MERGED,
    heads=r'(?:head|norm)\.',
)
SWIN_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'Swin of torchvision',
    marker=r'features\.1\.0\.attn\.qkv\.',
    rules=(
        (r'^patch_embed\.projection\.', 'features.0.0.'),
        (r'^patch_embed\.norm\.', 'features.0.2.'),
        *_SWIN_LAYERS,
        (r'\.mlp\.fc1\.', '.mlp.0.'),
        (r'\.mlp\.fc2\.', '.mlp.3.'),
        *(
            (rf'^stages\.{i}\.{part}\.', f'features.{2 * i + offset}.')
            for i in range(4)
            for part, offset in (('blocks', 1), ('downsample', 2))
        ),
    ),
    forms=_MERGED,
    heads=r'(?:head|norm)\.',
)
SWIN_TIMM_TO_AUTHORS = Dialect(
    'Swin of its authors',
    marker=r'layers\.0\.downsample\.',
    rules=tuple(
        (rf'^layers\.{i + 1}\.downsample\.', f'layers.{i}.downsample.')
        for i in range(3)
    ),
    heads=r'(?:head|norm)\.',
)
SWIN_TIMM_TO_TORCHVISION = Dialect(
    'Swin of torchvision',
    marker=r'features\.1\.0\.attn\.qkv\.',
    rules=(
        (r'^patch_embed\.proj\.', 'features.0.0.'),
        (r'^patch_embed\.norm\.', 'features.0.2.'),
        (r'\.mlp\.fc1\.', '.mlp.0.'),
        (r'\.mlp\.fc2\.', '.mlp.3.'),
        *(
            (rf'^layers\.{i}\.{part}\.', f'features.{2 * i + offset}.')
            for i in range(4)
            for part, offset in (('blocks', 1), ('downsample', 0))
        ),
    ),
    heads=r'(?:head|norm)\.',
)

_TO_TIMM = (
    (r'\.depthwise_conv\.', '.conv_dw.'),
    (r'\.pointwise_conv([12])\.', r'.mlp.fc\1.'),
    (r'\.grn\.gamma$', '.mlp.grn.weight'),
    (r'\.grn\.beta$', '.mlp.grn.bias'),
)

CONVNEXT_MMPRETRAIN_TO_TIMM = Dialect(
    'ConvNeXt of timm',
    marker=r'stages\.0\.blocks\.0\.conv_dw\.',
    rules=(
        (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
        *_TO_TIMM,
        (r'^downsample_layers\.0\.', 'stem.'),
        (r'^downsample_layers\.(\d)\.', r'stages.\1.downsample.'),
        (r'^norm3\.', 'head.norm.'),
    ),
    heads=r'head\.',
)
CONVNEXT_MMPRETRAIN_TO_AUTHORS = Dialect(
    'ConvNeXt of its authors',
    marker=r'stages\.0\.0\.dwconv\.',
    rules=(
        (r'\.depthwise_conv\.', '.dwconv.'),
        (r'\.pointwise_conv([12])\.', r'.pwconv\1.'),
        (r'^norm3\.', 'norm.'),
    ),
    heads=r'(?:head|norm)\.',
)
_LAYER_SCALE = (Form(r'\.gamma$', lambda x: x.flatten(), lambda x: x[:, None, None]),)

CONVNEXT_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'ConvNeXt of torchvision',
    marker=r'features\.1\.0\.layer_scale$',
    rules=(
        *(
            (rf'^stages\.{i}\.(\d+)\.{part}\.', rf'features.{2 * i + 1}.\1.block.{n}.')
            for i in range(4)
            for part, n in (
                ('depthwise_conv', 0),
                ('norm', 2),
                ('pointwise_conv1', 3),
                ('pointwise_conv2', 5),
            )
        ),
        *(
            (rf'^stages\.{i}\.(\d+)\.gamma$', rf'features.{2 * i + 1}.\1.layer_scale')
            for i in range(4)
        ),
        *((rf'^downsample_layers\.{i}\.', f'features.{2 * i}.') for i in range(4)),
        (r'^norm3\.', 'classifier.0.'),
    ),
    forms=_LAYER_SCALE,
)
CONVNEXT_TIMM_TO_AUTHORS = Dialect(
    'ConvNeXt of its authors',
    marker=r'stages\.0\.0\.dwconv\.',
    rules=(
        (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
        (r'^stages\.(\d)\.blocks\.', r'stages.\1.'),
        (r'\.conv_dw\.', '.dwconv.'),
        (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
        (r'^stem\.', 'downsample_layers.0.'),
        (r'^head\.norm\.', 'norm.'),
    ),
    heads=r'(?:head|norm)\.',
)
CONVNEXT_TIMM_TO_TORCHVISION = Dialect(
    'ConvNeXt of torchvision',
    marker=r'features\.1\.0\.layer_scale$',
    rules=(
        *(
            (
                rf'^stages\.{i}\.blocks\.(\d+)\.{part}\.',
                rf'features.{2 * i + 1}.\1.block.{n}.',
            )
            for i in range(4)
            for part, n in (('conv_dw', 0), ('norm', 2), ('mlp.fc1', 3), ('mlp.fc2', 5))
        ),
        *(
            (
                rf'^stages\.{i}\.blocks\.(\d+)\.gamma$',
                rf'features.{2 * i + 1}.\1.layer_scale',
            )
            for i in range(4)
        ),
        *((rf'^stages\.{i}\.downsample\.', f'features.{2 * i}.') for i in range(4)),
        (r'^stem\.', 'features.0.'),
        (r'^head\.norm\.', 'classifier.0.'),
    ),
    forms=_LAYER_SCALE,
)
