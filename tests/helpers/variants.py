"""The nets that the contract is tested on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.registry import MODELS

# One net of each kind: ours, and every way an adapter treats a net of its library.
REPRESENTATIVES: dict[str, dict[str, Any]] = {
    'res2net50': dict(type='Res2Net', depth=50),
    'res2net50-v1b': dict(type='Res2Net', depth=50, deep_stem=True, avg_down=True),
    'resnet18': dict(type='ResNet', depth=18),
    'resnet50-d': dict(type='ResNet', depth=50, deep_stem=True, avg_down=True),
    'timm-lite0': dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'),
    'timm-resnet18': dict(type='TIMMBackbone', model_name='resnet18'),
    'timm-convnext': dict(type='TIMMBackbone', model_name='convnext_atto'),
    'timm-vit': dict(type='TIMMBackbone', model_name='test_vit'),
    'timm-swin': dict(type='TIMMBackbone', model_name='swin_tiny_patch4_window7_224'),
    'torchvision-resnet18': dict(type='TorchvisionBackbone', model_name='resnet18'),
    'torchvision-mobilenet': dict(
        type='TorchvisionBackbone', model_name='mobilenet_v3_small'
    ),
    'torchvision-swin': dict(type='TorchvisionBackbone', model_name='swin_t'),
    'shufflenet': dict(type='ShuffleNetV2', widen_factor=0.5),
    'mobilenet-v2': dict(type='MobileNetV2', widen_factor=0.5),
    'mobilenet-v3': dict(type='MobileNetV3', arch='small'),
    'swin': dict(type='SwinTransformer', arch='tiny'),
    'convnext': dict(type='ConvNeXt', arch='atto'),
    'mmpretrain-efficientnet': dict(
        type='MMPretrainBackbone', model=dict(type='EfficientNet', arch='b0')
    ),
    'transformers-resnet': dict(
        type='TransformersBackbone', model='microsoft/resnet-18'
    ),
    'transformers-convnext': dict(
        type='TransformersBackbone', model='facebook/convnextv2-atto-1k-224'
    ),
    'transformers-vit': dict(
        type='TransformersBackbone',
        model=dict(
            model_type='dinov2',
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=56,
        ),
    ),
    'transformers-swin': dict(
        type='TransformersBackbone',
        model=dict(model_type='swin', embed_dim=24, num_heads=[1, 2, 4, 8]),
    ),
}

every = pytest.mark.parametrize('name', REPRESENTATIVES)


def config(name: str, **arguments: Any) -> dict[str, Any]:
    """Config of a representative, as a detector would name it."""
    cfg = {**REPRESENTATIVES[name], **arguments}
    return {**cfg, 'type': f'mmdet_backbones.{cfg["type"]}'}


def listed_variants() -> dict[str, dict[str, Any]]:
    """Every net that our classes list as published, those of mmpretrain included."""
    MODELS.import_from_location()
    return {
        f'{kind}-{name}': dict(type=f'mmdet_backbones.{kind}', **arguments)
        for kind, cls in MODELS.module_dict.items()
        for name, arguments in getattr(cls, 'variants', {}).items()
    }


def timm_variants(at_most: float = math.inf) -> dict[str, dict[str, Any]]:
    """The smallest net of every family that timm has, of so many parameters."""
    import timm

    figures = read_figures()['timm'].models
    families: dict[str, tuple[int, str]] = {}
    for name in timm.list_models(exclude_filters=['test_*']):
        found = figures[f'timm/{name}']
        if found.usable:
            family = timm.model_entrypoint(name).__module__
            smallest = families.get(family, (found.parameters, name))
            families[family] = min(smallest, (found.parameters, name))
    return {
        f'timm-{name}': dict(type='mmdet_backbones.TIMMBackbone', model_name=name)
        for parameters, name in families.values()
        if parameters <= at_most
    }


def torchvision_variants() -> dict[str, dict[str, Any]]:
    """Every classification net that torchvision has."""
    from torchvision import models

    return {
        f'torchvision-{name}': dict(
            type='mmdet_backbones.TorchvisionBackbone', model_name=name
        )
        for name in models.list_models(module=models)
    }
