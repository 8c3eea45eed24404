"""Published nets by their names on the hub: what their config.json says of the net.

Only what differs from the default of the config class stands here. That every one is
the net it is called, the same net of timm proves: tests/adapters/test_transformers.py
compares parameters, channels, mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...levels import IMAGENET, Preprocess

_HALF = Preprocess((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
# What the published weights of an architecture expect. The default of its image
# processor is none of it: that of ResNet and ConvNeXt would be 0.5.
FAMILIES: dict[str, Preprocess] = {
    'beit': _HALF,
    'bit': _HALF,
    **dict.fromkeys(
        (
            'convnext', 'convnextv2', 'dinov2', 'dinov2_with_registers',
            'dinov3_convnext', 'dinov3_vit', 'focalnet', 'hiera', 'pvt_v2', 'resnet',
            'swin', 'swinv2',
        ),
        IMAGENET,
    ),
}  # fmt: skip


def _vit(width: int, depth: int = 12) -> dict[str, Any]:
    heads = width // 64
    return dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)


def _stages(width: int, *depths: int) -> dict[str, Any]:
    """Four stages, each of twice the channels of the one before."""
    sizes = [width * 2**stage for stage in range(len(depths))]
    return dict(hidden_sizes=sizes, depths=list(depths))


def _windows(width: int, middle: int, size: int, window: int) -> dict[str, Any]:
    """A Swin of either version."""
    return dict(
        embed_dim=width,
        depths=[2, 2, middle, 2],
        num_heads=[width // 32 * 2**stage for stage in range(4)],
        image_size=size,
        window_size=window,
    )


def _pvt(*depths: int, **others: Any) -> dict[str, Any]:
    settings = dict(hidden_sizes=[64, 128, 320, 512], depths=list(depths))
    return {**settings, **others}


def _focal(width: int, middle: int, levels: int = 2) -> dict[str, Any]:
    return dict(
        embed_dim=width,
        hidden_sizes=[2 * width, 4 * width, 8 * width, 8 * width],
        depths=[2, 2, middle, 2],
        focal_levels=[levels] * 4,
    )


_BASIC = dict(hidden_sizes=[64, 128, 256, 512], layer_type='basic')
_VITS = {'small': _vit(384), 'base': _vit(768), 'large': _vit(1024, 24)}
_CONVNEXTS = {
    'tiny': _stages(96, 3, 3, 9, 3),
    'small': _stages(96, 3, 3, 27, 3),
    'base': _stages(128, 3, 3, 27, 3),
    'large': _stages(192, 3, 3, 27, 3),
}
_CONVNEXTS_V2 = {
    'atto': _stages(40, 2, 2, 6, 2),
    'femto': _stages(48, 2, 2, 6, 2),
    'pico': _stages(64, 2, 2, 6, 2),
    'nano': _stages(80, 2, 2, 8, 2),
    **{size: _CONVNEXTS[size] for size in ('tiny', 'base', 'large')},
}
_DINOV3 = {
    's': {**_vit(384), 'intermediate_size': 1536},
    'b': {**_vit(768), 'intermediate_size': 3072},
    'l': {**_vit(1024, 24), 'intermediate_size': 4096},
}
_BEIT = dict(use_relative_position_bias=True, use_mask_token=True)

# Owner, what stands around the name of the size, architecture, and the nets by size.
_TABLE: tuple[tuple[str, str, Mapping[str, dict[str, Any]], dict[str, Any]], ...] = (
    ('facebook/dinov2-{}', 'dinov2', _VITS, dict(image_size=518)),
    (
        'facebook/dinov2-with-registers-{}',
        'dinov2_with_registers',
        _VITS,
        dict(image_size=518, patch_size=14),
    ),
    (
        'facebook/dinov3-vit{}16-pretrain-lvd1689m',
        'dinov3_vit',
        _DINOV3,
        dict(num_register_tokens=4),
    ),
    (
        'facebook/dinov3-convnext-{}-pretrain-lvd1689m',
        'dinov3_convnext',
        _CONVNEXTS,
        {},
    ),
    ('facebook/convnext-{}-224', 'convnext', _CONVNEXTS, {}),
    ('facebook/convnextv2-{}-1k-224', 'convnextv2', _CONVNEXTS_V2, {}),
    (
        'microsoft/swin-{}-patch4-window7-224',
        'swin',
        {
            'tiny': _windows(96, 6, 224, 7),
            'small': _windows(96, 18, 224, 7),
            'base': _windows(128, 18, 224, 7),
        },
        {},
    ),
    (
        'microsoft/swinv2-{}-256',
        'swinv2',
        {
            'tiny-patch4-window8': _windows(96, 6, 256, 8),
            'tiny-patch4-window16': _windows(96, 6, 256, 16),
            'small-patch4-window8': _windows(96, 18, 256, 8),
            'base-patch4-window8': _windows(128, 18, 256, 8),
        },
        {},
    ),
    (
        'microsoft/resnet-{}',
        'resnet',
        {
            '18': {**_BASIC, 'depths': [2, 2, 2, 2]},
            '34': {**_BASIC, 'depths': [3, 4, 6, 3]},
            '50': {},
            '101': dict(depths=[3, 4, 23, 3]),
            '152': dict(depths=[3, 8, 36, 3]),
        },
        {},
    ),
    (
        'microsoft/focalnet-{}',
        'focalnet',
        {
            'tiny': _focal(96, 6),
            'tiny-lrf': _focal(96, 6, 3),
            'small': _focal(96, 18),
            'base': _focal(128, 18),
        },
        {},
    ),
    (
        'OpenGVLab/pvt_v2_{}',
        'pvt_v2',
        {
            'b0': {},
            'b1': _pvt(2, 2, 2, 2),
            'b2': _pvt(3, 4, 6, 3),
            'b2_linear': _pvt(3, 4, 6, 3, linear_attention=True),
            'b3': _pvt(3, 4, 18, 3),
            'b4': _pvt(3, 8, 27, 3),
            'b5': _pvt(3, 6, 40, 3, mlp_ratios=[4, 4, 4, 4]),
        },
        {},
    ),
    (
        'facebook/hiera-{}-224-hf',
        'hiera',
        {
            'tiny': dict(depths=[1, 2, 7, 2]),
            'small': dict(depths=[1, 2, 11, 2]),
            'base': {},
            'base-plus': dict(embed_dim=112, num_heads=[2, 4, 8, 16]),
            'large': dict(embed_dim=144, depths=[2, 6, 36, 4], num_heads=[2, 4, 8, 16]),
        },
        {},
    ),
    (
        'microsoft/beit-{}-patch16-224',
        'beit',
        {
            'base': _BEIT,
            'large': {**_BEIT, **_vit(1024, 24), 'intermediate_size': 4096},
        },
        {},
    ),
    ('google/bit-{}', 'bit', {'50': {}}, {}),
)


def _published() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, kind, sizes, common in _TABLE:
        for size, settings in sizes.items():
            yield name.format(size), {'model_type': kind, **common, **settings}


# Arguments of the config class by name, ``model_type`` among them.
PUBLISHED: dict[str, dict[str, Any]] = dict(_published())
