"""Key names of Hugging Face's transformers library.

The tables start from the names of the authors of each net, which timm keeps. What nets
with a head have before them (``resnet.``, ``swin.``) is found as a prefix.
"""

from __future__ import annotations

from .dialect import Dialect

RESNET = Dialect(
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

SWIN = Dialect(
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
        (r'\.attn\.', '.attention.self.'),
        (r'\.mlp\.fc1\.', '.intermediate.dense.'),
        (r'\.mlp\.fc2\.', '.output.dense.'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
        (r'^patch_embed\.norm\.', 'embeddings.norm.'),
        (r'^norm\.', 'layernorm.'),
    ),
    split=((r'\.self\.qkv\.', ('.self.query.', '.self.key.', '.self.value.')),),
    heads=r'(?:classifier|layernorm)\.',
)

CONVNEXT = Dialect(
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
        (r'\.gamma$', '.layer_scale_parameter'),
        (r'^head\.norm\.', 'layernorm.'),
    ),
    heads=r'(?:classifier|layernorm)\.',
)

DINOV2 = Dialect(
    'DINOv2 of transformers',
    marker=r'(?:dinov2\w*\.)?encoder\.layer\.0\.norm1\.',
    rules=(
        (r'^cls_token$', 'embeddings.cls_token'),
        (r'^reg_token$', 'embeddings.register_tokens'),
        (r'^pos_embed$', 'embeddings.position_embeddings'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
        (r'^blocks\.', 'encoder.layer.'),
        (r'\.attn\.proj\.', '.attention.output.dense.'),
        (r'\.attn\.qkv\.', '.attention.attention.qkv.'),
        (r'\.ls([12])\.gamma$', r'.layer_scale\1.lambda1'),
        (r'^norm\.', 'layernorm.'),
    ),
    split=(
        (
            r'\.attention\.qkv\.',
            ('.attention.query.', '.attention.key.', '.attention.value.'),
        ),
    ),
    heads=r'(?:classifier|layernorm|embeddings\.mask_token)',
)
