"""Key names of the checkpoints that people load into timm's nets."""

from __future__ import annotations

import re

from . import mobile, transformers
from . import swin_convnext as hierarchical
from . import vgg_shufflenet as plain
from .dialect import Dialect, backwards

ROOT = 'timm_model.'

# timm wraps some nets into its extractors of feature maps, and flattens containers of
# others: `stages.0` becomes `stages_0`, `stem.conv1` becomes `stem_conv1`.
TIMM = Dialect(
    'timm',
    marker=rf'(?!{re.escape(ROOT)})',
    rules=(
        (rf'^{re.escape(ROOT)}(?:(?:model|body)\.)?', ''),
        (r'^(stem(?!_dct)|features|patch_embed|\w+?(?=_\d+\.))_(\w+)\.', r'\1.\2.'),
    ),
    heads=r'(?:head|fc|classifier|conv_head|norm|bn2|fc_norm|head_drop)\.',
)
EFFICIENTNET_PYTORCH = mobile.TIMM_TO_EFFICIENTNET_PYTORCH.on(TIMM)


DIALECTS = (
    TIMM,
    EFFICIENTNET_PYTORCH,
    *(
        table.on(TIMM)
        for table in (
            mobile.TIMM_TO_TORCHVISION_V2,
            mobile.TIMM_TO_FIRST_V2,
            mobile.TIMM_TO_TORCHVISION_V3,
            mobile.TIMM_TO_TORCHVISION_EFFICIENTNET,
            mobile.TIMM_TO_MMPRETRAIN_V2,
            mobile.TIMM_TO_MMPRETRAIN_V3,
            hierarchical.SWIN_TIMM_TO_AUTHORS,
            hierarchical.SWIN_TIMM_TO_TORCHVISION,
            hierarchical.CONVNEXT_TIMM_TO_AUTHORS,
            hierarchical.CONVNEXT_TIMM_TO_TORCHVISION,
            transformers.RESNET,
            transformers.SWIN,
            transformers.CONVNEXT,
            transformers.DINOV2,
            plain.CRAFT,
        )
    ),
    backwards(
        hierarchical.SWIN_MMPRETRAIN_TO_TIMM,
        'Swin of mmpretrain',
        r'stages\.0\.blocks\.0\.attn\.w_msa\.',
        base=TIMM,
    ),
    backwards(
        hierarchical.CONVNEXT_MMPRETRAIN_TO_TIMM,
        'ConvNeXt of mmpretrain',
        r'stages\.0\.0\.depthwise_conv\.',
        base=TIMM,
    ),
    backwards(
        plain.VGG_MMPRETRAIN_TO_TORCHVISION,
        'VGG of mmpretrain',
        r'features\.0\.conv\.',
        base=TIMM,
    ),
    EFFICIENTNET_PYTORCH.meet(
        mobile.MMPRETRAIN_TO_EFFICIENTNET_PYTORCH,
        'EfficientNet of mmpretrain',
        mobile.MMPRETRAIN_EFFICIENTNET,
    ),
)
