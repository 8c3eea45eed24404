"""Which checkpoints people load into the nets of each library."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType

from . import mobile, resnet_vgg, swin_convnext, vit
from .dialect import Dialect
from .layouts import FIRST, in_turn
from .rewriting import Rewrite

# Under what our classes keep the net of a library. timm wraps some of its nets into its
# extractors of feature maps.
_TIMM_ROOT = r'^timm_model\.(?:(?:model|body)\.)?'
_TORCHVISION_ROOT = r'^body\.'
# Top-level parts of torchvision's nets that come after the last feature map. The
# classifier of SqueezeNet is convolutional and would pass for a feature map.
HEADS = ('classifier', 'fc', 'head', 'heads', 'aux1', 'aux2', 'AuxLogits')
# What models of transformers have beside the net that gives the maps: classifiers,
# poolers, the normalisation before them, and what is trained with masked images.
HEADS_OF_TRANSFORMERS = (
    r'(?:\w+\.)?(?:classifier|cls_classifier|distillation_classifier|decoder|head|layer_?norm'
    r'|lm_head|norm|pooler|projection)\.|(?:\w+\.)?embeddings\.mask_token$'
)

_TIMM = Dialect(
    'timm',
    marker=r'(?!timm_model\.)',
    rules=(
        (_TIMM_ROOT, ''),
        # It flattens containers of some nets: `stages.0` becomes `stages_0`,
        # `stem.conv1` becomes `stem_conv1`.
        (r'^(stem(?!_dct)|features|patch_embed|\w+?(?=_\d+\.))_(\w+)\.', r'\1.\2.'),
    ),
    heads=r'(?:(?:head|fc|classifier|conv_head|norm|bn2|fc_norm|head_drop)\.|mask_token$)',
)
_TORCHVISION = Dialect(
    'torchvision',
    marker=r'(?!body\.)',
    rules=((_TORCHVISION_ROOT, ''),),
    older=(
        # So are those of DenseNet.
        (r'(denselayer\d+\.(?:norm|relu|conv))\.([12])\.', r'\1\2.'),
        *vit.OLDER_OF_TORCHVISION,
    ),
    heads=rf'(?:{"|".join(HEADS)})\.',
)


def without_root(key: str) -> str:
    """Take off what our classes put before the names of a library's net."""
    return re.sub(f'{_TIMM_ROOT}|{_TORCHVISION_ROOT}', '', key)


def through_timm(convert: Rewrite) -> Dialect:
    """Return a dialect of all layouts that a function turns into timm's.

    Args:
        convert: Of timm: turns a file of the authors of a net into one of timm.
    """
    return replace(
        _TIMM, name='as timm converts it', marker='', rewrite=in_turn(*FIRST, convert)
    )


_FAMILIES: tuple[ModuleType, ...] = (mobile, swin_convnext, vit, resnet_vgg)
INTO_TIMM: tuple[Dialect, ...] = (
    _TIMM,
    replace(_TIMM, name='timm, rearranged', rewrite=in_turn(*FIRST)),
    *(table.on(_TIMM) for family in _FAMILIES for table in family.INTO_TIMM),
)
INTO_TORCHVISION: tuple[Dialect, ...] = (
    _TORCHVISION,
    *(
        table.on(_TORCHVISION)
        for family in _FAMILIES
        for table in family.INTO_TORCHVISION
    ),
)
# Which family is meant, the keys tell.
INTO_MMPRETRAIN: tuple[Dialect, ...] = tuple(
    table for family in _FAMILIES for table in family.INTO_MMPRETRAIN
)
