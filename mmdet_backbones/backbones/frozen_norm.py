"""Batch normalisation that never trains, as detectron2's detectors use it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import MODELS

FROZEN_BN = 'mmdet_backbones.FrozenBN'


@MODELS.register_module()
class FrozenBN(nn.Module):
    """Batch normalisation whose scale, shift and statistics are constants.

    Same values as ``torchvision.ops.FrozenBatchNorm2d`` and detectron2's class. Unlike
    torchvision's it keeps the type of its input under autocast, where that one turns
    half precision maps into single precision. Importing it does not import torchvision.

    ``norm_cfg=dict(type='mmdet_backbones.FrozenBN')`` puts it into any net that builds
    its layers with mmcv; it is named ``bn`` there like ordinary batch normalisation,
    whose checkpoints load with ``strict=True``. Its four tensors are buffers, so it has
    nothing to train, ``train()`` does not change it, and it is left alone by the
    conversion to ``SyncBatchNorm``.

    Args:
        num_features: Channels C of the (N, C, H, W) or (N, C) input.
        eps: Added to the variance.
    """

    _abbr_ = 'bn'

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer('weight', torch.ones(num_features))
        self.register_buffer('bias', torch.zeros(num_features))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))

    @classmethod
    def of(cls, norm: _BatchNorm) -> FrozenBN:
        """Freeze ordinary batch normalisation with the values that it has."""
        with norm.running_mean.device:  # type: ignore[union-attr]
            frozen = cls(norm.num_features, norm.eps)
        frozen.load_state_dict(norm.state_dict())
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...); the type and the memory format are kept."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        # batch_norm would keep its input for the gradient of the scale.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        shape = (1, -1, *(1,) * (x.dim() - 2))
        scale, shift = (t.to(x.dtype).reshape(shape) for t in (scale, shift))
        return torch.addcmul(shift, x, scale)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        # Ordinary batch normalisation counts its batches.
        state_dict.pop(f'{prefix}num_batches_tracked', None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Name the constructor's arguments in the printed net."""
        return f'{self.num_features}, eps={self.eps}'


def norm_trains(norm_cfg: dict[str, Any]) -> bool:
    """Tell whether layers of this kind have a scale that training changes."""
    frozen = norm_cfg['type'] in (FrozenBN, FROZEN_BN)
    return not frozen and norm_cfg.get('requires_grad', True)
