"""Key names of the checkpoints that people load into mmpretrain's nets."""

from __future__ import annotations

from . import mobile, transformers
from . import swin_convnext as hierarchical
from . import vgg_shufflenet as plain
from .dialect import backwards

_TIMM_MARKER = r'conv_stem\.'

SHUFFLENET_V2 = (plain.SHUFFLENET_MMPRETRAIN_TO_TORCHVISION,)
MOBILENET_V2 = (
    mobile.MMPRETRAIN_TO_TORCHVISION_V2,
    mobile.MMPRETRAIN_TO_FIRST_V2,
    backwards(
        mobile.TIMM_TO_MMPRETRAIN_V2,
        'MobileNetV2 of timm',
        _TIMM_MARKER,
        mobile.TIMM_HEADS,
    ),
)
MOBILENET_V3 = (
    mobile.MMPRETRAIN_TO_TORCHVISION_V3,
    backwards(
        mobile.TIMM_TO_MMPRETRAIN_V3,
        'MobileNetV3 of timm',
        _TIMM_MARKER,
        mobile.TIMM_HEADS,
    ),
)
EFFICIENTNET = (
    mobile.MMPRETRAIN_TO_EFFICIENTNET_PYTORCH,
    mobile.MMPRETRAIN_TO_EFFICIENTNET_PYTORCH.meet(
        mobile.TIMM_TO_EFFICIENTNET_PYTORCH,
        'EfficientNet of timm',
        _TIMM_MARKER,
        mobile.TIMM_HEADS,
    ),
    mobile.MMPRETRAIN_TO_EFFICIENTNET_PYTORCH.meet(
        mobile.TORCHVISION_TO_EFFICIENTNET_PYTORCH,
        'EfficientNet of torchvision',
        mobile.TORCHVISION_EFFICIENTNET,
    ),
)
SWIN = (
    hierarchical.SWIN_MMPRETRAIN_TO_AUTHORS,
    hierarchical.SWIN_MMPRETRAIN_TO_TIMM,
    hierarchical.SWIN_MMPRETRAIN_TO_TORCHVISION,
    transformers.SWIN.on(hierarchical.SWIN_MMPRETRAIN_TO_TIMM),
)
CONVNEXT = (
    hierarchical.CONVNEXT_MMPRETRAIN_TO_AUTHORS,
    hierarchical.CONVNEXT_MMPRETRAIN_TO_TIMM,
    hierarchical.CONVNEXT_MMPRETRAIN_TO_TORCHVISION,
    transformers.CONVNEXT.on(hierarchical.CONVNEXT_MMPRETRAIN_TO_TIMM),
)
VGG = (plain.VGG_MMPRETRAIN_TO_TORCHVISION, plain.CRAFT_OF_MMPRETRAIN)
# What MMPretrainBackbone can build; which table is meant, the keys tell.
ALL = (
    *SHUFFLENET_V2,
    *MOBILENET_V2,
    *MOBILENET_V3,
    *EFFICIENTNET,
    *SWIN,
    *CONVNEXT,
    *VGG,
    transformers.RESNET,
)
