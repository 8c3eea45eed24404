"""Key names of Swin and ConvNeXt in all sources.

Each table leads from the first source in its name to the second; read backwards it
brings checkpoints of the first into nets of the second.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from .dialect import Dialect, Form, backwards
from .layouts import renaming, unkeyed_biases

_SWIN_HEADS = r'(?:head|norms?)\.'
_OF_TRANSFORMERS = r'(?:classifier|layernorm)\.'


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


_SWIN_MMPRETRAIN_TO_TIMM = Dialect(
    'Swin of timm',
    marker=r'layers\.3\.downsample\.',
    rules=(
        (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
        (r'\.attn\.w_msa\.', '.attn.'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        (r'^norm3\.', 'norm.'),
        *(
            (rf'^stages\.{i}\.downsample\.', f'layers.{i + 1}.downsample.')
            for i in range(3)
        ),
        (r'^stages\.', 'layers.'),
    ),
    forms=(
        Form(
            r'^stages\.\d\.downsample\.(?:norm\.|reduction\.)',
            _to_unfolded,
            _from_unfolded,
        ),
    ),
    heads=_SWIN_HEADS,
)
# It merges patches at the start of a stage, as timm does, and normalises them after the
# reduction, in the order of the new channels.
_SWIN_V2_MMPRETRAIN_TO_TIMM = replace(
    _SWIN_MMPRETRAIN_TO_TIMM,
    name='Swin V2 of timm',
    marker=r'layers\.0\.blocks\.0\.attn\.logit_scale$',
    rules=(
        (r'^(stages\.\d)\.downsample\.', r'\1.merge.'),
        *_SWIN_MMPRETRAIN_TO_TIMM.rules,
        (r'^(layers\.\d)\.merge\.', r'\1.downsample.'),
    ),
    forms=(
        Form(r'^stages\.\d\.downsample\.reduction\.', _to_unfolded, _from_unfolded),
    ),
)
_SWIN_TIMM_TO_AUTHORS = Dialect(
    'Swin of its authors',
    marker=r'layers\.0\.downsample\.',
    rules=tuple(
        (rf'^layers\.{i + 1}\.downsample\.', f'layers.{i}.downsample.')
        for i in range(3)
    ),
    heads=_SWIN_HEADS,
)
_SWIN_TIMM_TO_TORCHVISION = Dialect(
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
    heads=_SWIN_HEADS,
)
_SWIN_V2_TIMM_TO_TORCHVISION = replace(
    _SWIN_TIMM_TO_TORCHVISION,
    name='Swin V2 of torchvision',
    marker=r'features\.1\.0\.attn\.logit_scale$',
    rewrite=partial(unkeyed_biases, masked=True),
)
_SWIN_TIMM_TO_TRANSFORMERS = Dialect(
    'Swin of transformers',
    marker=r'(?:swin\.)?encoder\.layers\.0\.blocks\.0\.attention\.self\.',
    rules=(
        *(
            (rf'^layers\.{i + 1}\.downsample\.', f'encoder.layers.{i}.downsample.')
            for i in (0, 1, 2)
        ),
        (r'^layers\.', 'encoder.layers.'),
        (r'\.norm1\.', '.layernorm_before.'),
        (r'\.norm2\.', '.layernorm_after.'),
        (r'\.attn\.proj\.', '.attention.output.dense.'),
        (r'\.attn\.q_bias$', '.attention.self.query.bias'),
        (r'\.attn\.v_bias$', '.attention.self.value.bias'),
        (r'\.attn\.cpb_mlp\.', '.attention.self.continuous_position_bias_mlp.'),
        (r'\.attn\.', '.attention.self.'),
        (r'\.mlp\.fc1\.', '.intermediate.dense.'),
        (r'\.mlp\.fc2\.', '.output.dense.'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
        (r'^patch_embed\.norm\.', 'embeddings.norm.'),
        (r'^norm\.', 'layernorm.'),
    ),
    split=((r'\.self\.qkv\.', ('.self.query.', '.self.key.', '.self.value.')),),
    heads=_OF_TRANSFORMERS,
)
_SWIN_MMPRETRAIN_TO_TORCHVISION = _SWIN_TIMM_TO_TORCHVISION.on(_SWIN_MMPRETRAIN_TO_TIMM)

_CONVNEXT_MMPRETRAIN_TO_TIMM = Dialect(
    'ConvNeXt of timm',
    marker=r'stages\.0\.blocks\.0\.conv_dw\.',
    rules=(
        (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
        (r'\.depthwise_conv\.', '.conv_dw.'),
        (r'\.pointwise_conv([12])\.', r'.mlp.fc\1.'),
        (r'\.grn\.gamma$', '.mlp.grn.weight'),
        (r'\.grn\.beta$', '.mlp.grn.bias'),
        (r'^downsample_layers\.0\.', 'stem.'),
        (r'^downsample_layers\.(\d)\.', r'stages.\1.downsample.'),
        (r'^norm3\.', 'head.norm.'),
    ),
    heads=r'head\.',
)
_CONVNEXT_TIMM_TO_AUTHORS = Dialect(
    'ConvNeXt of its authors',
    marker=r'stages\.0\.0\.dwconv\.',
    rules=(
        (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
        (r'^stages\.(\d)\.blocks\.', r'stages.\1.'),
        (r'\.conv_dw\.', '.dwconv.'),
        (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
        (r'\.mlp\.grn\.weight$', '.grn.gamma'),
        (r'\.mlp\.grn\.bias$', '.grn.beta'),
        (r'^stem\.', 'downsample_layers.0.'),
        (r'^head\.norm\.', 'norm.'),
    ),
    heads=_SWIN_HEADS,
)
_CONVNEXT_TIMM_TO_TORCHVISION = Dialect(
    'ConvNeXt of torchvision',
    marker=r'features\.1\.0\.layer_scale$',
    rules=(
        *(
            (
                rf'^stages\.{i}\.blocks\.(\d+)\.{part}',
                rf'features.{2 * i + 1}.\1.{theirs}',
            )
            for i in range(4)
            for part, theirs in (
                (r'conv_dw\.', 'block.0.'),
                (r'norm\.', 'block.2.'),
                (r'mlp\.fc1\.', 'block.3.'),
                (r'mlp\.fc2\.', 'block.5.'),
                ('gamma$', 'layer_scale'),
            )
        ),
        *((rf'^stages\.{i}\.downsample\.', f'features.{2 * i}.') for i in range(4)),
        (r'^stem\.', 'features.0.'),
        (r'^head\.norm\.', 'classifier.0.'),
    ),
    forms=(Form(r'\.gamma$', lambda x: x.flatten(), lambda x: x[:, None, None]),),
)
_CONVNEXT_TIMM_TO_TRANSFORMERS = Dialect(
    'ConvNeXt of transformers',
    marker=r'(?:convnext\.)?embeddings\.patch_embeddings\.weight$',
    rules=(
        (r'^stem\.0\.', 'embeddings.patch_embeddings.'),
        (r'^stem\.1\.', 'embeddings.layernorm.'),
        (r'^stages\.(\d)\.downsample\.', r'encoder.stages.\1.downsampling_layer.'),
        (r'^stages\.(\d)\.blocks\.', r'encoder.stages.\1.layers.'),
        (r'\.conv_dw\.', '.dwconv.'),
        (r'(layers\.\d+)\.norm\.', r'\1.layernorm.'),
        (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
        (r'\.mlp\.grn\.', '.grn.'),
        (r'\.gamma$', '.layer_scale_parameter'),
        (r'^head\.norm\.', 'layernorm.'),
    ),
    forms=(Form(r'\.grn\.', lambda x: x.flatten(), lambda x: x.reshape(1, 1, 1, -1)),),
    heads=_OF_TRANSFORMERS,
)
_DINOV3_CONVNEXT_TIMM_TO_TRANSFORMERS = Dialect(
    'DINOv3 ConvNeXt of transformers',
    marker=r'(?:model\.)?stages\.0\.layers\.0\.depthwise_conv\.',
    rules=(
        (r'^stem\.', 'stages.0.downsample_layers.'),
        (r'^stages\.(\d)\.downsample\.', r'stages.\1.downsample_layers.'),
        (r'^stages\.(\d)\.blocks\.(\d+)\.norm\.', r'stages.\1.layers.\2.layer_norm.'),
        (r'^stages\.(\d)\.blocks\.', r'stages.\1.layers.'),
        (r'\.conv_dw\.', '.depthwise_conv.'),
        (r'\.mlp\.fc([12])\.', r'.pointwise_conv\1.'),
        (r'^head\.norm\.', 'layer_norm.'),
    ),
    heads=r'layer_norm\.',
)
_CONVNEXT_MMPRETRAIN_TO_TORCHVISION = _CONVNEXT_TIMM_TO_TORCHVISION.on(
    _CONVNEXT_MMPRETRAIN_TO_TIMM
)

_SWIN_OF_MMPRETRAIN = ('Swin of mmpretrain', r'stages\.0\.blocks\.0\.attn\.w_msa\.')
# The torchvision classes have a table to timm's names alone.
_CONVNEXT_AUTHORS_TO_TIMM = (
    (r'^downsample_layers\.0\.', 'stem.'),
    (r'^downsample_layers\.(\d)\.', r'stages.\1.downsample.'),
    (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'\.dwconv\.', '.conv_dw.'),
    (r'\.pwconv([12])\.', r'.mlp.fc\1.'),
    (r'^norm\.', 'head.norm.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)
_CONVNEXT_OF_MMPRETRAIN = ('ConvNeXt of mmpretrain', r'stages\.0\.0\.depthwise_conv\.')

# Which checkpoints go into the nets of each library.
INTO_TIMM = (
    _SWIN_TIMM_TO_AUTHORS,
    _SWIN_TIMM_TO_TORCHVISION,
    _SWIN_V2_TIMM_TO_TORCHVISION,
    _SWIN_TIMM_TO_TRANSFORMERS,
    backwards(
        _SWIN_V2_MMPRETRAIN_TO_TIMM,
        'Swin V2 of mmpretrain',
        r'stages\.0\.blocks\.0\.attn\.w_msa\.logit_scale$',
    ),
    backwards(_SWIN_MMPRETRAIN_TO_TIMM, *_SWIN_OF_MMPRETRAIN),
    _CONVNEXT_TIMM_TO_AUTHORS,
    _CONVNEXT_TIMM_TO_TORCHVISION,
    _CONVNEXT_TIMM_TO_TRANSFORMERS,
    backwards(_CONVNEXT_MMPRETRAIN_TO_TIMM, *_CONVNEXT_OF_MMPRETRAIN),
    _DINOV3_CONVNEXT_TIMM_TO_TRANSFORMERS,
)
INTO_TORCHVISION = (
    replace(
        backwards(
            _CONVNEXT_TIMM_TO_TORCHVISION,
            _CONVNEXT_TIMM_TO_AUTHORS.name,
            _CONVNEXT_TIMM_TO_AUTHORS.marker,
            r'(?:head|norms)\.',
        ),
        rewrite=renaming(_CONVNEXT_AUTHORS_TO_TIMM),
    ),
    backwards(_SWIN_TIMM_TO_TORCHVISION, 'Swin of timm', r'layers\.3\.downsample\.'),
    backwards(_SWIN_MMPRETRAIN_TO_TORCHVISION, *_SWIN_OF_MMPRETRAIN),
    backwards(
        _CONVNEXT_TIMM_TO_TORCHVISION,
        'ConvNeXt of timm',
        r'stages\.0\.blocks\.0\.conv_dw\.',
    ),
    backwards(_CONVNEXT_MMPRETRAIN_TO_TORCHVISION, *_CONVNEXT_OF_MMPRETRAIN),
)
SWIN = (
    _SWIN_TIMM_TO_AUTHORS.on(_SWIN_MMPRETRAIN_TO_TIMM),
    _SWIN_MMPRETRAIN_TO_TIMM,
    _SWIN_MMPRETRAIN_TO_TORCHVISION,
    _SWIN_TIMM_TO_TRANSFORMERS.on(_SWIN_MMPRETRAIN_TO_TIMM),
)
CONVNEXT = (
    _CONVNEXT_TIMM_TO_AUTHORS.on(_CONVNEXT_MMPRETRAIN_TO_TIMM),
    _CONVNEXT_MMPRETRAIN_TO_TIMM,
    _CONVNEXT_MMPRETRAIN_TO_TORCHVISION,
    _CONVNEXT_TIMM_TO_TRANSFORMERS.on(_CONVNEXT_MMPRETRAIN_TO_TIMM),
)
# Before those of the first version, whose markers are also in files of the second.
_SWIN_V2 = (
    _SWIN_V2_MMPRETRAIN_TO_TIMM,
    replace(
        _SWIN_TIMM_TO_AUTHORS.on(_SWIN_V2_MMPRETRAIN_TO_TIMM),
        name='Swin V2 of its authors',
        marker=_SWIN_V2_MMPRETRAIN_TO_TIMM.marker,
    ),
    replace(
        _SWIN_TIMM_TO_TRANSFORMERS.on(_SWIN_V2_MMPRETRAIN_TO_TIMM),
        name='Swin V2 of transformers',
        marker=r'encoder\.layers\.0\.blocks\.0\.attention\.self\.logit_scale$',
    ),
)
INTO_MMPRETRAIN = (*_SWIN_V2, *SWIN, *CONVNEXT)
