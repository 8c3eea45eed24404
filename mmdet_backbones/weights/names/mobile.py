"""Key names of MobileNetV2, MobileNetV3 and EfficientNet, from one source to the next.

Each table leads from the first source in its name to the second; read backwards it
brings checkpoints of the first into nets of the second.
"""

from __future__ import annotations

from . import mobile_layers as naming
from .dialect import Dialect
from .mobile_layers import HEAD, STEM, Layer, Where, is_end, renumber


def _efficientnet_pytorch(layer: Layer, where: Where) -> str:
    """Write a name of the package efficientnet-pytorch."""
    if is_end(layer):
        ends = {STEM: ('_conv_stem', '_bn0'), HEAD: ('_conv_head', '_bn1')}
        return f'{ends[layer.stage][layer.kind == "bn"]}.{layer.leaf}'
    names = {
        'expand': ('_expand_conv', '_bn0'),
        'depthwise': ('_depthwise_conv', '_bn1'),
        'squeeze': ('_se_reduce', '_se_expand'),
        'project': ('_project_conv', '_bn2'),
    }
    name = names[layer.part][layer.kind in ('bn', 'excite')]
    return f'_blocks.{where.block}.{name}.{layer.leaf}'


def _torchvision_v2(layer: Layer, where: Where) -> str:
    """Write a name of torchvision's MobileNetV2."""
    second = int(layer.kind == 'bn')
    root = f'features.{where.block + 1}'
    if is_end(layer):
        return f'{root}.{second}.{layer.leaf}'
    number = f'{where.part + second}' if where.last else f'{where.part}.{second}'
    return f'{root}.conv.{number}.{layer.leaf}'


def _first_v2(layer: Layer, where: Where) -> str:
    """Write a name of the first port of MobileNetV2 to PyTorch, by tonylins."""
    second = int(layer.kind == 'bn')
    root = f'features.{where.block + 1}'
    if is_end(layer):
        return f'{root}.{second}.{layer.leaf}'
    return f'{root}.conv.{3 * where.part + second}.{layer.leaf}'


def _torchvision_block(root: str, layer: Layer, where: Where) -> str:
    if layer.part == 'squeeze':
        name = 'fc1' if layer.kind == 'reduce' else 'fc2'
    else:
        name = str(int(layer.kind == 'bn'))
    if is_end(layer):
        return f'{root}.{name}.{layer.leaf}'
    return f'{root}.block.{where.part}.{name}.{layer.leaf}'


def _torchvision_v3(layer: Layer, where: Where) -> str:
    """Write a name of torchvision's MobileNetV3."""
    return _torchvision_block(f'features.{where.block + 1}', layer, where)


def _torchvision_efficientnet(layer: Layer, where: Where) -> str:
    """Write a name of torchvision's EfficientNet."""
    root = f'features.{where.stage + 1}'
    return _torchvision_block(
        root if is_end(layer) else f'{root}.{layer.block}', layer, where
    )


def _mmpretrain_v2(layer: Layer, where: Where) -> str:
    """Write a name of mmpretrain's MobileNetV2."""
    if is_end(layer):
        root = 'conv1' if layer.stage == STEM else 'conv2'
    else:
        root = f'layer{where.stage + 1}.{layer.block}.conv.{where.part}'
    return f'{root}.{layer.kind}.{layer.leaf}'


def _mmpretrain_block(root: str, layer: Layer) -> str:
    if is_end(layer):
        return f'{root}.{layer.kind}.{layer.leaf}'
    names = {'expand': 'expand_conv', 'depthwise': 'depthwise_conv'}
    if layer.part == 'squeeze':
        number = 1 if layer.kind == 'reduce' else 2
        return f'{root}.se.conv{number}.conv.{layer.leaf}'
    name = names.get(layer.part, 'linear_conv')
    return f'{root}.{name}.{layer.kind}.{layer.leaf}'


def _mmpretrain_v3(layer: Layer, where: Where) -> str:
    """Write a name of mmpretrain's MobileNetV3."""
    return _mmpretrain_block(f'layer{where.block + 1}', layer)


_TIMM = naming.TIMM
_HEADS = r'(?:classifier|fc|head)\.'
_TORCHVISION_V2 = r'features\.1\.conv\.0\.0\.'
# At first the last convolution stood apart.
_FIRST_V2_OLDER = ((r'^conv\.', 'features.18.'),)
_FIRST_V2 = r'features\.1\.conv\.0\.weight$'
_TORCHVISION_V3 = r'features\.1\.block\.0\.0\.'
TORCHVISION_EFFICIENTNET = r'features\.1\.0\.block\.0\.0\.'
MMPRETRAIN_EFFICIENTNET = r'layers\.1\.0\.depthwise_conv\.'
# Of timm's nets the last convolution stands before the pooling or after it.
TIMM_HEADS = r'(?:conv_head|bn2|classifier)\.'

TIMM_TO_EFFICIENTNET_PYTORCH = Dialect(
    'efficientnet-pytorch',
    marker=r'_conv_stem\.',
    renumber=renumber(_TIMM, _efficientnet_pytorch),
    heads=r'_(?:conv_head|bn1|fc)\.',
)
TIMM_TO_TORCHVISION_V2 = Dialect(
    'MobileNetV2 of torchvision',
    marker=_TORCHVISION_V2,
    renumber=renumber(_TIMM, _torchvision_v2),
    heads=r'(?:classifier|features\.18)\.',
)
TIMM_TO_FIRST_V2 = Dialect(
    'MobileNetV2 of tonylins',
    marker=_FIRST_V2,
    older=_FIRST_V2_OLDER,
    renumber=renumber(_TIMM, _first_v2),
    heads=r'(?:classifier|conv|features\.18)\.',
)
TIMM_TO_TORCHVISION_V3 = Dialect(
    'MobileNetV3 of torchvision',
    marker=_TORCHVISION_V3,
    renumber=renumber(_TIMM, _torchvision_v3),
    heads=_HEADS,
)
TIMM_TO_TORCHVISION_EFFICIENTNET = Dialect(
    'EfficientNet of torchvision',
    marker=TORCHVISION_EFFICIENTNET,
    renumber=renumber(_TIMM, _torchvision_efficientnet),
    heads=r'(?:classifier|features\.8)\.',
)
TIMM_TO_MMPRETRAIN_V2 = Dialect(
    'MobileNetV2 of mmpretrain',
    marker=r'layer1\.0\.conv\.0\.conv\.',
    renumber=renumber(_TIMM, _mmpretrain_v2),
    heads=r'(?:head|conv2)\.',
)
TIMM_TO_MMPRETRAIN_V3 = Dialect(
    'MobileNetV3 of mmpretrain',
    marker=r'layer1\.depthwise_conv\.',
    renumber=renumber(_TIMM, _mmpretrain_v3),
)
MMPRETRAIN_TO_TORCHVISION_V2 = Dialect(
    'MobileNetV2 of torchvision',
    marker=_TORCHVISION_V2,
    renumber=renumber(naming.MMPRETRAIN_V2, _torchvision_v2),
)
MMPRETRAIN_TO_FIRST_V2 = Dialect(
    'MobileNetV2 of tonylins',
    marker=_FIRST_V2,
    older=_FIRST_V2_OLDER,
    renumber=renumber(naming.MMPRETRAIN_V2, _first_v2),
)
MMPRETRAIN_TO_TORCHVISION_V3 = Dialect(
    'MobileNetV3 of torchvision',
    marker=_TORCHVISION_V3,
    renumber=renumber(naming.MMPRETRAIN_V3, _torchvision_v3),
)
MMPRETRAIN_TO_EFFICIENTNET_PYTORCH = Dialect(
    'efficientnet-pytorch',
    marker=r'_conv_stem\.',
    renumber=renumber(naming.MMPRETRAIN_EFFICIENTNET, _efficientnet_pytorch),
    heads=r'_fc\.',
)
TORCHVISION_TO_FIRST_V2 = Dialect(
    'MobileNetV2 of tonylins',
    marker=_FIRST_V2,
    older=_FIRST_V2_OLDER,
    renumber=renumber(naming.TORCHVISION_V2, _first_v2),
)
TORCHVISION_TO_EFFICIENTNET_PYTORCH = Dialect(
    'efficientnet-pytorch',
    marker=r'_conv_stem\.',
    renumber=renumber(naming.TORCHVISION_EFFICIENTNET, _efficientnet_pytorch),
    heads=r'_fc\.',
)
