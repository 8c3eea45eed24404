"""Arrangements of files that training programs write and no function of timm reads.

Each function takes a file and gives it back under the names of a published one; a file
of another arrangement comes back as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...errors import PretrainedWeightsError
from .rewriting import Rewrite

Rules = tuple[tuple[str, str], ...]

_CHUNK = re.compile(r'^blocks\.\d+\.(\d+)\.')
_SHARED_TABLE = 'rel_pos_bias.relative_position_bias_table'


def whole_blocks(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take blocks out of the chunks that DINOv2 and DINOv3 train them in.

    ``blocks.0.3.norm1`` is ``blocks.3.norm1``: the second number counts over the net.
    """
    return {_CHUNK.sub(r'blocks.\1.', key): v for key, v in state_dict.items()}


def own_tables(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every block the table of relative positions that all of them share.

    BEiT trains itself with one table for the net and is fine-tuned with one per block.
    """
    result = dict(state_dict)
    if _SHARED_TABLE in result:
        table = result.pop(_SHARED_TABLE)
        blocks = {m[0] for key in result if (m := re.match(r'blocks\.\d+\.', key))}
        for block in blocks:
            result[f'{block}attn.relative_position_bias_table'] = table
    return result


def class_entry(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the position of the class token to it, in transformers' DINOv2.

    Nets with registers in timm have positions of patches only.
    """
    result = dict(state_dict)
    token, table = 'embeddings.cls_token', 'embeddings.position_embeddings'
    result[token] = result[token] + result[table][:, :1]
    result[table] = result[table][:, 1:]
    return result


def keyed_biases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the biases of queries and values, with zeros for the keys between them."""
    result = dict(state_dict)
    for key in [key for key in result if key.endswith('.attn.q_bias')]:
        q, v = result.pop(key), result.pop(f'{key[:-6]}v_bias')
        result[f'{key[:-6]}qkv.bias'] = torch.cat((q, torch.zeros_like(q), v))
    return result


def unkeyed_biases(
    state_dict: Mapping[str, Tensor], masked: bool = False
) -> dict[str, Tensor]:
    """Part the biases of queries and values.

    Args:
        state_dict: Of the file.
        masked: Whether its net takes those of the keys as zeros, whatever they are.

    Raises:
        PretrainedWeightsError: If they are no zeros otherwise.
    """
    result = dict(state_dict)
    for key in [key for key in result if key.endswith('.attn.qkv.bias')]:
        q, k, v = result.pop(key).chunk(3)
        if not masked and not k.is_meta and bool(k.any()):
            raise PretrainedWeightsError(
                f'{key} has a bias of the keys other than zeros, and the net has none: '
                'write a checkpoint of the same net'
            )
        result[f'{key[:-8]}q_bias'], result[f'{key[:-8]}v_bias'] = q, v
    return result


# What is done before anything else reads the file.
FIRST: tuple[Rewrite, ...] = (whole_blocks, own_tables)


def renaming(rules: Rules) -> Rewrite:
    """Return a function that renames every tensor by each pair in turn."""
    return partial(_rename, rules)


def _rename(rules: Rules, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for key, value in state_dict.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result


def in_turn(*rewrites: Rewrite) -> Rewrite:
    """Return a function that calls several, each with the result of the one before."""
    return partial(_in_turn, rewrites)


def _in_turn(
    rewrites: tuple[Rewrite, ...], state_dict: dict[str, Tensor]
) -> Mapping[str, Tensor]:
    for rewrite in rewrites:
        state_dict = dict(rewrite(state_dict))
    return state_dict
