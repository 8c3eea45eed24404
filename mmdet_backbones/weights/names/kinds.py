"""Tell from names what kind of net a checkpoint is of."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Each kind with what stands in the names of its published files, where these tell it,
# and the patterns of keys that all must be found, of all sources that are read. The
# first that fits is taken, so special kinds stand before general ones.
_KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ('Res2Net', r'res2net', (r'layer1\.0\.convs\.\d',)),
    ('ShuffleNetV1', r'shufflenet_?v1', (
        r'g_conv_1x1_compress\.|\.branch_main_1\.|first_pointwise_',
    )),
    ('ShuffleNetV2', r'shufflenet_?v2', (
        r'(?:layers\.\d|stage[234])\.\d+\.branch[12]\.',
    )),
    ('HRNet', '', (r'stage\d\.\d\.fuse_layers\.',)),
    ('CSPDarknet', '', (
        r'(?:stage|dark)\d\.\d\.(?:main_conv|short_conv|conv1)\.conv\.',
    )),
    ('Darknet', r'darknet', (r'conv_res_block\d\.',)),
    ('DenseNet', '', (r'denseblock\d\.',)),
    ('RegNet', '', (r'trunk_output\.block\d|(?:^|\.)s1\.b1\.',)),
    ('SwinV2', '', (r'\.(?:logit_scale|cpb_mlp\.\d)',)),
    ('Swin', r'swin', (
        r'relative_position_bias_table$', r'downsample\.|\.2\.reduction',
    )),
    ('BEiT', '', (r'relative_position_bias_table$', r'cls_token$')),
    ('DINOv2', '', (r'\.(?:ls1\.gamma|layer_scale1\.lambda1)$', r'cls_token$')),
    ('ViT', '', (
        r'(?:cls_token|class_token|pos_embed(?:ding)?)$',
        r'\.attn\.|\.attention\.|self_attention',
    )),
    ('ConvNeXtV2', '', (r'\.grn\.',)),
    ('ConvNeXt', r'convnext', (
        r'\.(?:dwconv|depthwise_conv|conv_dw|block\.0)\.weight$',
        r'\.(?:pwconv1|pointwise_conv1|mlp\.fc1|block\.3)\.weight$',
        r'gamma$|layer_scale',
    )),
    ('ConvNeXt', '', (r'features\.1\.0\.layer_scale$',)),
    ('EfficientNet', r'efficientnet', (
        r'_blocks\.0\._depthwise_|layers\.1\.0\.depthwise_|features\.1\.0\.block\.',
    )),
    ('MobileNetV3', r'mobilenet_?v3', (
        r'layer1\.depthwise_conv\.|features\.1\.block\.0\.0\.',
    )),
    ('MobileNetV2', r'mobilenet_?v2', (
        r'layer\d\.\d\.conv\.\d\.conv\.|features\.\d+\.conv\.\d',
    )),
    ('MobileNetV3 or EfficientNet', '', (r'conv_stem\.', r'\.se\.conv_reduce\.')),
    ('MobileNetV2 or EfficientNet', '', (
        r'conv_stem\.', r'blocks\.\d\.\d\.conv_pwl\.',
    )),
    ('VGG', r'vgg', (r'(?:features|slice\d)\.\d+\.(?:conv\.)?weight$',)),
    ('ResNet', '', (
        r'layer1\.0\.conv1\.|res2\.0\.conv1\.|stages\.0\.layers\.0\.layer\.0\.convolution',
    )),
)  # fmt: skip

# What only the names of one source have. The first that fits is taken.
_SOURCES = (
    ('PaddlePaddle', r'\._(?:mean|variance)$'),
    ('Keras', r'(?:/|\.)(?:kernel|depthwise_kernel|moving_mean)(?::0)?$'),
    ('OpenCLIP', r'transformer\.resblocks\.'),
    ('detectron2', r'res2\.0\.(?:conv1|shortcut)\.norm\.'),
    ('transformers', r'(?:^|\.)(?:embeddings|embedder)\.|encoder\.layers?\.0\.'),
    ('torchvision', (
        r'encoder_layer_0\.|trunk_output\.|features\.(?:\d+\.\d+\.|denseblock1|conv0)'
    )),
    ('mmpretrain or mmdet', (
        r'\.w_msa\.|\.ffn\.|layers\.0\.ln1\.|depthwise_conv|stages\.\d\.\d\.attn\.'
        r'|layers\.\d\.\d+\.\w+\.conv\.|stage\d\.\d\.(?:main_conv|short_conv)\.'
    )),
    ('timm', r'conv_stem\.|\.mlp\.fc1\.|\.conv_dw\.|(?:^|\.)s1\.b1\.'),
)  # fmt: skip


def source_of(keys: Iterable[str]) -> str | None:
    """Name the program that spells parameters so, None if the names do not tell."""
    text = '\n'.join(keys)
    for source, pattern in _SOURCES:
        if re.search(pattern, text, re.MULTILINE):
            return source
    return None


def kind_of(keys: Iterable[str]) -> str | None:
    """Name the kind of net that has these parameters, None if it is not known."""
    text = '\n'.join(keys)
    for kind, _, patterns in _KINDS:
        if all(re.search(pattern, text, re.MULTILINE) for pattern in patterns):
            return kind
    return None


def differ(one: str | None, other: str | None) -> bool:
    """Whether two kinds are known to be different ones."""
    if one is None or other is None:
        return False
    return not set(one.split(' or ')) & set(other.split(' or '))


def other_kind_by_file(kind: str | None, checkpoint: str) -> str | None:
    """Tell from the name of a file that it is of another kind of net.

    Args:
        kind: Of a net.
        checkpoint: Path or address of the file.

    Returns:
        The other kind; None where the name does not tell, or would not tell ``kind``.
    """
    file = checkpoint.lower().rpartition('/')[2]
    told = {kind: word for kind, word, _ in _KINDS if word}
    there = next((kind for kind, word in told.items() if re.search(word, file)), None)
    known = kind is not None and not told.keys().isdisjoint(kind.split(' or '))
    return there if known and differ(kind, there) else None
