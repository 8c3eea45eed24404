"""What the host libraries lose when one batch normalisation takes another's place.

Every converter (torch's, mmengine's in both directions) builds a plain layer, hands it
the tensors of the old one and then its children. timm's layers hold an activation: the
plain layer would have it too, and never call it.
"""

from __future__ import annotations

import sys
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, TypeGuard

from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_module_registration_hook

_AFTERWARDS = {'act', 'drop'}
# Plain layers and those that call their children, by module and class.
_CALLING = (
    (('torch.nn', 'SyncBatchNorm'), ('timm.layers.norm_act', 'SyncBatchNormAct')),
    (('mmengine.model.utils', '_BatchNormXd'), ('timm.layers', 'BatchNormAct2d')),
    (
        ('mmcv.ops.sync_bn', 'SyncBatchNorm'),
        ('mmdet_backbones.compat.sync_norm_act', 'MMSyncBatchNormAct'),
    ),
)


def is_batch_norm(layer: nn.Module) -> TypeGuard[_BatchNorm]:
    """Tell whether a layer keeps running statistics in training.

    mmcv's ``MMSyncBN`` does, and is none of torch's classes.
    """
    ops = sys.modules.get('mmcv.ops.sync_bn')
    return isinstance(layer, (_BatchNorm, ops.SyncBatchNorm) if ops else _BatchNorm)


def keep_activations(_: ModuleType) -> None:
    """Let what a converter makes of timm's layers activate as they did."""
    register_module_module_registration_hook(_call_children)


def _call_children(layer: nn.Module, name: str, _: Any) -> None:
    # Here and not in the converters: there are more of them than we know.
    if name not in _AFTERWARDS or not {*layer._modules, name} >= _AFTERWARDS:
        return
    for (module, plain), (place, calling) in _CALLING:
        if type(layer) is getattr(sys.modules.get(module), plain, None):
            layer.__class__ = getattr(import_module(place), calling)
            return


def copy_without_group(ops: ModuleType) -> None:
    """Let ``MMSyncBN`` be copied, as averaging a model in training does.

    It holds the group of all processes, which cannot be copied. None means the same.
    """

    def getstate(layer: nn.Module) -> dict[str, Any]:
        state = layer.__dict__.copy()
        if state['group'] is dist.group.WORLD:
            state['group'] = None
        return state

    ops.SyncBatchNorm.__getstate__ = getstate


def keep_modes(utils: ModuleType) -> None:
    """Let mmengine's conversion leave layers in eval mode that are in it."""
    convert = utils.convert_sync_batchnorm

    @wraps(convert)
    def convert_sync_batchnorm(
        module: nn.Module, implementation: str = 'torch'
    ) -> nn.Module:
        # It calls itself for every child by this name.
        converted: nn.Module = convert(module, implementation)
        converted.training = module.training
        return converted

    utils.convert_sync_batchnorm = convert_sync_batchnorm  # type: ignore[attr-defined]
