"""Key names of the plain vision transformers in all sources.

ViT, DeiT, BEiT, EVA, DINOv2, DINOv3, SAM and the image towers of CLIP and SigLIP. Each
table leads from the first source in its name to the second.
"""

from __future__ import annotations

from dataclasses import replace

from .dialect import Dialect, Form, backwards
from .layouts import class_entry, keyed_biases, unkeyed_biases

_HEADS = r'(?:classifier|layernorm|pooler|norm|embeddings\.mask_token)'
_QKV = ('query', 'key', 'value')

_TIMM_TO_TRANSFORMERS = Dialect(
    'ViT of transformers',
    marker=r'encoder\.layer\.0\.layernorm_before\.',
    rules=(
        (r'^cls_token$', 'embeddings.cls_token'),
        (r'^dist_token$', 'embeddings.distillation_token'),
        (r'^pos_embed$', 'embeddings.position_embeddings'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
        (r'^blocks\.', 'encoder.layer.'),
        (r'\.norm1\.', '.layernorm_before.'),
        (r'\.norm2\.', '.layernorm_after.'),
        (r'\.attn\.proj\.', '.attention.output.dense.'),
        (r'\.attn\.qkv\.', '.attention.attention.qkv.'),
        (r'\.mlp\.fc1\.', '.intermediate.dense.'),
        (r'\.mlp\.fc2\.', '.output.dense.'),
        (r'^norm\.', 'layernorm.'),
        # BEiT.
        (r'\.gamma_([12])$', r'.lambda_\1'),
        (r'\.attn\.q_bias$', '.attention.attention.query.bias'),
        (r'\.attn\.v_bias$', '.attention.attention.value.bias'),
        (
            r'\.attn\.relative_position_bias_table$',
            '.attention.attention.relative_position_bias.relative_position_bias_table',
        ),
        (r'^fc_norm\.', 'pooler.layernorm.'),
    ),
    split=((r'attention\.qkv\.', tuple(f'attention.{part}.' for part in _QKV)),),
    heads=_HEADS,
)
_DINOV2_TIMM_TO_TRANSFORMERS = Dialect(
    'DINOv2 of transformers',
    marker=r'encoder\.layer\.0\.norm1\.',
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
    split=((r'attention\.qkv\.', tuple(f'attention.{part}.' for part in _QKV)),),
    heads=_HEADS,
)
# Its positions begin with one of the class token, for which timm's net has no place.
_DINOV2_WITH_REGISTERS = replace(
    _DINOV2_TIMM_TO_TRANSFORMERS,
    name='DINOv2 with registers of transformers',
    marker=r'embeddings\.register_tokens$',
    rewrite=class_entry,
)
_DINOV3_TIMM_TO_TRANSFORMERS = Dialect(
    'DINOv3 of transformers',
    marker=r'(?:model\.)?layer\.0\.attention\.q_proj\.',
    rules=(
        (r'^cls_token$', 'embeddings.cls_token'),
        (r'^reg_token$', 'embeddings.register_tokens'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.'),
        (r'^blocks\.', 'layer.'),
        (r'\.attn\.proj\.', '.attention.o_proj.'),
        (r'\.attn\.([qv])_bias$', r'.attention.\1_proj.bias'),
        (r'\.attn\.', '.attention.'),
        (r'\.gamma_([12])$', r'.layer_scale\1.lambda1'),
        (r'\.mlp\.fc1_g\.', '.mlp.gate_proj.'),
        (r'\.mlp\.fc1(?:_x)?\.', '.mlp.up_proj.'),
        (r'\.mlp\.fc2\.', '.mlp.down_proj.'),
    ),
    split=((r'attention\.qkv\.', tuple(f'attention.{p}_proj.' for p in 'qkv')),),
    older=((r'^model\.layer\.', 'layer.'),),
    heads=_HEADS,
)
_TOWER_TIMM_TO_TRANSFORMERS = Dialect(
    'CLIP or SigLIP of transformers',
    marker=r'encoder\.layers\.0\.self_attn\.',
    rules=(
        (r'^cls_token$', 'embeddings.class_embedding'),
        (r'^pos_embed$', 'embeddings.position_embedding.weight'),
        (r'^patch_embed\.proj\.', 'embeddings.patch_embedding.'),
        (r'^norm_pre\.', 'pre_layrnorm.'),
        (r'^blocks\.', 'encoder.layers.'),
        (r'\.norm([12])\.', r'.layer_norm\1.'),
        (r'\.attn\.proj\.', '.self_attn.out_proj.'),
        (r'\.attn\.', '.self_attn.'),
        (r'^norm\.', 'post_layernorm.'),
    ),
    split=((r'self_attn\.qkv\.', tuple(f'self_attn.{p}_proj.' for p in 'qkv')),),
    forms=(
        Form(r'(?:^|\.)cls_token$', lambda x: x[None, None], lambda x: x.flatten()),
        Form(r'(?:^|\.)pos_embed$', lambda x: x[None], lambda x: x[0]),
    ),
    heads=r'(?:head|post_layernorm)\.',
)
# Published files are older than torchvision's class, which renames their keys.
OLDER_OF_TORCHVISION = (
    (r'\.mlp\.linear_1\.', '.mlp.0.'),
    (r'\.mlp\.linear_2\.', '.mlp.3.'),
)
_TIMM_TO_TORCHVISION = Dialect(
    'ViT of torchvision',
    marker=r'encoder\.layers\.encoder_layer_0\.',
    rules=(
        (r'^cls_token$', 'class_token'),
        (r'^pos_embed$', 'encoder.pos_embedding'),
        (r'^patch_embed\.proj\.', 'conv_proj.'),
        (r'^blocks\.', 'encoder.layers.encoder_layer_'),
        (r'\.norm([12])\.', r'.ln_\1.'),
        (r'\.attn\.qkv\.', '.self_attention.in_proj_'),
        (r'\.attn\.proj\.', '.self_attention.out_proj.'),
        (r'\.mlp\.fc1\.', '.mlp.0.'),
        (r'\.mlp\.fc2\.', '.mlp.3.'),
        (r'^norm\.', 'encoder.ln.'),
    ),
    older=OLDER_OF_TORCHVISION,
    heads=r'(?:heads|encoder\.ln)\.',
)

_MMPRETRAIN_TO_TIMM = Dialect(
    'ViT of timm',
    marker=r'blocks\.0\.norm1\.',
    rules=(
        (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
        (r'^pre_norm\.', 'norm_pre.'),
        (r'^ln1\.', 'norm.'),
        (r'^ln2\.', 'fc_norm.'),
        (r'^channel_reduction\.', 'neck.'),
        (r'^layers\.', 'blocks.'),
        (r'\.ln([12])\.', r'.norm\1.'),
        (r'\.attn\.gamma1\.weight$', '.ls1.gamma'),
        (r'\.ffn\.gamma2\.weight$', '.ls2.gamma'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        # EVA-02 and the largest DINOv2.
        (r'\.(?:ffn|mlp)\.w12\.', '.mlp.fc1.'),
        (r'\.(?:ffn|mlp)\.w3\.', '.mlp.fc2.'),
        (r'\.mlp\.ffn_ln\.', '.mlp.norm.'),
        (r'\.attn\.inner_attn_ln\.', '.attn.norm.'),
    ),
    heads=r'(?:head|norm|fc_norm|mask_token)',
)
_OF_MMPRETRAIN = backwards(
    _MMPRETRAIN_TO_TIMM,
    'ViT of mmpretrain',
    r'layers\.0\.(?:attn\.(?:qkv|proj)|ln1)\.',
    r'(?:head|ln1|ln2|mask_token|neck|target_generator)',
)
_DEIT3_TIMM_TO_AUTHORS = Dialect(
    'DeiT-III of its authors',
    marker=r'blocks\.0\.gamma_1$',
    rules=((r'\.ls([12])\.gamma$', r'.gamma_\1'),),
)
_OF_TRANSFORMERS = (
    _TIMM_TO_TRANSFORMERS,
    # Before the plain ones, whose names are in its files as well.
    _DINOV2_WITH_REGISTERS,
    _DINOV2_TIMM_TO_TRANSFORMERS,
    _DINOV3_TIMM_TO_TRANSFORMERS,
    _TOWER_TIMM_TO_TRANSFORMERS,
)

# Which checkpoints go into the nets of each library.
INTO_TIMM = (
    *_OF_TRANSFORMERS,
    _TIMM_TO_TORCHVISION,
    _OF_MMPRETRAIN,
    # EVA-02 has no bias of the keys, for which mmpretrain's class keeps zeros.
    replace(_OF_MMPRETRAIN, name='EVA-02 of mmpretrain', rewrite=unkeyed_biases),
)
INTO_TORCHVISION = (
    backwards(
        _TIMM_TO_TORCHVISION,
        _MMPRETRAIN_TO_TIMM.name,
        _MMPRETRAIN_TO_TIMM.marker,
        _MMPRETRAIN_TO_TIMM.heads,
    ),
)
INTO_MMPRETRAIN = (
    _MMPRETRAIN_TO_TIMM,
    replace(_MMPRETRAIN_TO_TIMM, name='EVA-02 of timm', rewrite=keyed_biases),
    *(
        table.on(_MMPRETRAIN_TO_TIMM)
        for table in (*_OF_TRANSFORMERS, _TIMM_TO_TORCHVISION)
    ),
    _DEIT3_TIMM_TO_AUTHORS.on(_MMPRETRAIN_TO_TIMM),
)
