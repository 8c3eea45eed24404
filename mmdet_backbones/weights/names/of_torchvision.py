"""Key names of the checkpoints that people load into torchvision's nets."""

from __future__ import annotations

from . import mobile, transformers
from . import swin_convnext as hierarchical
from . import vgg_shufflenet as plain
from .dialect import Dialect, backwards

ROOT = 'body.'
# Top-level parts of torchvision's nets that come after the last feature map. The
# classifier of SqueezeNet is convolutional and would pass for a feature map.
HEADS = ('classifier', 'fc', 'head', 'heads', 'aux1', 'aux2', 'AuxLogits')

TORCHVISION = Dialect(
    'torchvision',
    marker=rf'(?!{ROOT})',
    rules=((r'^body\.', ''),),
    older=(
        # Published files of DenseNet and ViT are older than the classes; torchvision
        # renames their keys while it loads them.
        (r'(denselayer\d+\.(?:norm|relu|conv))\.([12])\.', r'\1\2.'),
        (r'\.mlp\.linear_1\.', '.mlp.0.'),
        (r'\.mlp\.linear_2\.', '.mlp.3.'),
    ),
    heads=rf'(?:{"|".join(HEADS)})\.',
)


def _backwards(table: Dialect, name: str, marker: str) -> Dialect:
    return backwards(table, name, marker, base=TORCHVISION)


_MOBILE_OF_TIMM = r'conv_stem\.'

DIALECTS = (
    TORCHVISION,
    mobile.TORCHVISION_TO_FIRST_V2.on(TORCHVISION),
    plain.CRAFT.on(TORCHVISION),
    transformers.RESNET.on(TORCHVISION),
    *(
        backwards(
            table, f'{net} of timm', _MOBILE_OF_TIMM, mobile.TIMM_HEADS, TORCHVISION
        )
        for table, net in (
            (mobile.TIMM_TO_TORCHVISION_V2, 'MobileNetV2'),
            (mobile.TIMM_TO_TORCHVISION_V3, 'MobileNetV3'),
            (mobile.TIMM_TO_TORCHVISION_EFFICIENTNET, 'EfficientNet'),
        )
    ),
    *(
        _backwards(table, f'{net} of mmpretrain', marker)
        for table, net, marker in (
            (
                mobile.MMPRETRAIN_TO_TORCHVISION_V2,
                'MobileNetV2',
                r'layer1\.0\.conv\.0\.conv\.',
            ),
            (
                mobile.MMPRETRAIN_TO_TORCHVISION_V3,
                'MobileNetV3',
                r'layer1\.depthwise_conv\.',
            ),
            (
                plain.SHUFFLENET_MMPRETRAIN_TO_TORCHVISION,
                'ShuffleNetV2',
                r'layers\.0\.0\.branch1\.0\.conv\.',
            ),
            (
                plain.VGG_MMPRETRAIN_TO_TORCHVISION,
                'VGG',
                r'features\.0\.conv\.',
            ),
            (
                hierarchical.SWIN_MMPRETRAIN_TO_TORCHVISION,
                'Swin',
                r'stages\.0\.blocks\.0\.attn\.w_msa\.',
            ),
            (
                hierarchical.CONVNEXT_MMPRETRAIN_TO_TORCHVISION,
                'ConvNeXt',
                r'stages\.0\.0\.depthwise_conv\.',
            ),
        )
    ),
    _backwards(
        hierarchical.SWIN_TIMM_TO_TORCHVISION,
        'Swin of timm',
        r'layers\.3\.downsample\.',
    ),
    _backwards(
        hierarchical.CONVNEXT_TIMM_TO_TORCHVISION,
        'ConvNeXt of timm',
        r'stages\.0\.blocks\.0\.conv_dw\.',
    ),
    mobile.TORCHVISION_TO_EFFICIENTNET_PYTORCH.on(TORCHVISION),
    mobile.TORCHVISION_TO_EFFICIENTNET_PYTORCH.on(TORCHVISION).meet(
        mobile.MMPRETRAIN_TO_EFFICIENTNET_PYTORCH,
        'EfficientNet of mmpretrain',
        mobile.MMPRETRAIN_EFFICIENTNET,
    ),
)
