"""Backbones for MMDetection 3.x, checked before training starts.

Importing the package is cheap: it prepares the host libraries and nothing else.
Backbones are built by name, ``type='mmdet_backbones.Res2Net'``, and mmengine
imports their modules the first time one is asked for.
"""

from importlib import import_module
from typing import Any

from .compat.hooks import install

__version__ = '0.1.0'

_LAZY = {
    'MODELS': 'registry',
    'Level': 'backbones.contract',
    'Res2Net': 'backbones.residual.res2net',
    'ResNet': 'backbones.residual.resnet',
    'TIMMBackbone': 'adapters.timm.backbone',
    'TorchvisionBackbone': 'adapters.torchvision.backbone',
    'MMPretrainBackbone': 'adapters.mmpretrain.backbone',
    'SimpleFeaturePyramid': 'necks.simple_feature_pyramid',
    'SingleLevel': 'necks.single_level',
    'PretrainedWeightsError': 'errors',
    'fuse_for_inference': 'inference.fusion',
}
__all__ = ['__version__', *_LAZY]

install()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f'{__name__}.{_LAZY[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
