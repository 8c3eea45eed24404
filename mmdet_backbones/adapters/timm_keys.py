"""Key names of the checkpoints that people load into timm's nets."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..weights.dialect import Dialect

ROOT = 'timm_model.'


def feature_name(plain: str, target_keys: Collection[str]) -> str:
    """Name of a parameter of a timm net inside its feature extractor.

    timm wraps some nets (``model.``, ``body.``) and flattens the first number of others
    (``stages.0`` becomes ``stages_0``).

    Args:
        plain: Name in the classification net.
        target_keys: Names in the backbone, which start with ``timm_model.``.

    Returns:
        The name in the backbone, or ``plain`` behind ``timm_model.`` if it has none.
    """
    flat = re.sub(r'^(\w+)\.(\d+)\.', r'\1_\2.', plain)
    for inner in (plain, flat, f'model.{plain}', f'body.{plain}'):
        if f'{ROOT}{inner}' in target_keys:
            return f'{ROOT}{inner}'
    return f'{ROOT}{plain}'


_EFFICIENTNET_BLOCK = re.compile(r'_blocks\.(\d+)\.(.+)')
# The first convolution of a block is there only if it widens the input.
_WIDENING = (
    ('_expand_conv', 'conv_pw'),
    ('_bn0', 'bn1'),
    ('_depthwise_conv', 'conv_dw'),
    ('_bn1', 'bn2'),
    ('_project_conv', 'conv_pwl'),
    ('_bn2', 'bn3'),
)
_PLAIN = (
    ('_depthwise_conv', 'conv_dw'),
    ('_bn1', 'bn1'),
    ('_project_conv', 'conv_pw'),
    ('_bn2', 'bn2'),
)
_ATTENTION = (('_se_reduce', 'se.conv_reduce'), ('_se_expand', 'se.conv_expand'))


def _efficientnet_block(key: str, target_keys: Collection[str]) -> str:
    match = _EFFICIENTNET_BLOCK.fullmatch(key)
    if match is None:
        return key
    places = sorted(
        {
            (int(m[1]), int(m[2]))
            for m in (re.search(r'blocks\.(\d+)\.(\d+)\.', k) for k in target_keys)
            if m
        }
    )
    number = int(match[1])
    if number >= len(places):
        return key
    block = f'{ROOT}blocks.{places[number][0]}.{places[number][1]}.'
    widens = f'{block}conv_pwl.weight' in target_keys
    part, _, leaf = match[2].partition('.')
    names = dict((*(_WIDENING if widens else _PLAIN), *_ATTENTION))
    return f'{block}{names.get(part, part)}.{leaf}'


TIMM = Dialect(
    'timm',
    marker=rf'(?!{re.escape(ROOT)})',
    heads=r'(?:head|fc|classifier|conv_head|norm|bn2|fc_norm|head_drop)\.',
    renumber=feature_name,
)
EFFICIENTNET_PYTORCH = Dialect(
    'efficientnet-pytorch',
    marker=r'_conv_stem\.',
    rules=((r'^_conv_stem\.', f'{ROOT}conv_stem.'), (r'^_bn0\.', f'{ROOT}bn1.')),
    heads=r'_(?:conv_head|bn1|fc)\.',
    renumber=_efficientnet_block,
)
