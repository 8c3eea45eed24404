"""How transformers names the parameters of RT-DETR."""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor

from ..weights.names.dialect import Dialect, Form

_BRANCH = re.compile(r'bbox_head\.(cls|reg)_branches\.(\d+)\.')
_CLASSES = r'^dn_query_generator\.label_embedding\.weight$'


def _name_branches(keys: Collection[str]) -> dict[str, str]:
    """Tell the last branch, which belongs to the encoder, from those of the decoder."""
    found = {key: match for key in keys if (match := _BRANCH.match(key))}
    last = max((int(match[2]) for match in found.values()), default=0)
    heads = dict(cls='enc_score_head.', reg='enc_bbox_head.')
    lists = dict(cls='decoder.class_embed.', reg='decoder.bbox_embed.')
    return {
        key: (
            heads[match[1]]
            if int(match[2]) == last
            else f'{lists[match[1]]}{match[2]}.'
        )
        + key[match.end() :]
        for key, match in found.items()
    }


def _without_padding(classes: Tensor) -> Tensor:
    """Leave out the last row, zeros that stand for no object in batches of theirs."""
    return classes[:-1]


def _with_padding(classes: Tensor) -> Tensor:
    return torch.cat((classes, torch.zeros_like(classes[:1])))


_NORM = {'conv': '0', 'bn': '1'}
# The backbone has dialects of its own. Published files may be older than the names
# that transformers has today.
RTDETR_OF_TRANSFORMERS = Dialect(
    'RT-DETR of transformers',
    marker=r'(?:model\.)?encoder_input_proj\.0\.0\.',
    renumber=_name_branches,
    rules=(
        *(
            (
                rf'^neck\.input_proj\.(\d+)\.{ours}\.',
                rf'encoder_input_proj.\1.{theirs}.',
            )
            for ours, theirs in _NORM.items()
        ),
        *(
            (rf'^input_proj\.(\d+)\.{ours}\.', rf'decoder_input_proj.\1.{theirs}.')
            for ours, theirs in _NORM.items()
        ),
        (r'^neck\.encoder\.layers\.', 'encoder.aifi.0.layers.'),
        (r'^(encoder\..*)\.norms\.1\.', r'\1.final_layer_norm.'),
        (r'^(decoder\..*)\.norms\.1\.', r'\1.encoder_attn_layer_norm.'),
        (r'\.norms\.0\.', '.self_attn_layer_norm.'),
        (r'\.norms\.2\.', '.final_layer_norm.'),
        (r'\.self_attn\.attn\.out_proj\.', '.self_attn.o_proj.'),
        (r'\.self_attn\.attn\.', '.self_attn.'),
        (r'\.cross_attn\.', '.encoder_attn.'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        (r'^neck\.(.*)\.bn\.', r'encoder.\1.norm.'),
        (r'^neck\.', 'encoder.'),
        (r'^memory_trans_fc\.', 'enc_output.0.'),
        (r'^memory_trans_norm\.', 'enc_output.1.'),
        (r'^dn_query_generator\.label_embedding\.', 'denoising_class_embed.'),
        *(
            (rf'bbox_(embed\.\d+|head)\.{2 * i}\.', rf'bbox_\1.layers.{i}.')
            for i in range(3)
        ),
        (r'^', 'model.'),
    ),
    split=(
        (
            r'in_proj_(weight|bias)$',
            tuple(rf'{part}_proj.\1' for part in ('q', 'k', 'v')),
        ),
    ),
    older=(
        (r'\.out_proj\.', '.o_proj.'),
        (r'(layers\.\d+)\.(fc[12])\.', r'\1.mlp.\2.'),
        (r'^model\.encoder\.encoder\.', 'model.encoder.aifi.'),
    ),
    forms=(Form(_CLASSES, _without_padding, _with_padding),),
)
