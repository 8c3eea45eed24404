"""Layer-wise decay of the learning rate, for every backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..backbones.layer_groups import (
    LAYER_WISE,
    STAGE_WISE,
    layer_groups,
    not_decayed,
    tokens,
)
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

_OURS = ('decay_rate', 'decay_type', 'backbone_lr_mult')
# Of mmengine's constructor, beside custom_keys.
MMENGINE_OPTIONS = (
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'flat_decay_mult',
    'bypass_duplicate',
)
KEYS = (*_OURS, 'custom_keys', *MMENGINE_OPTIONS)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall from the top of the backbone to its stem.

    As for fine-tuning of BEiT (`arXiv 2106.08254 <https://arxiv.org/abs/2106.08254>`_)
    and ViTDet: group ``g`` of ``G`` layer groups, the stem's being 0, learns with
    ``lr * backbone_lr_mult * decay_rate ** (G - g)``; necks and heads with ``lr``. The
    groups are those of :func:`~mmdet_backbones.backbones.layer_groups.layer_groups`.
    Class and register tokens, which every block reads, learn with ``lr *
    backbone_lr_mult``, as in detectron2. Position embeddings and tokens of the backbone
    take no weight decay. Parameters without gradient, frozen stages among them, are
    left out. All others stand in the optimiser once, in one group per pair of learning
    rate and weight decay.

    ``paramwise_cfg`` takes ``decay_rate`` (above 0 to 1, required), ``decay_type``
    (``'layer_wise'``, a group per block, or ``'stage_wise'``), ``backbone_lr_mult``
    (1), and all that mmengine's ``DefaultOptimWrapperConstructor`` takes, such as
    ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult`` and ``custom_keys``,
    whose factors multiply with those of the layers.

    Args:
        optim_wrapper_cfg: As mmengine's constructor takes it.
        paramwise_cfg: As above.

    Raises:
        TypeError: If ``paramwise_cfg`` is no dict.
        ValueError: For unknown keys, and for values out of range; all are listed.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper',
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='mmdet_backbones.LayerDecayConstructor',
        ...     paramwise_cfg=dict(decay_rate=0.8, norm_decay_mult=0.0),
        ... )
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        problems = _problems(self.paramwise_cfg, self.base_lr)
        if problems:
            raise ValueError(f'LayerDecayConstructor: {"; ".join(problems)}')

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimiser; on a GPU, AdamW takes its steps in one launch a group.

        Args:
            model: The detector, on its device.
        """
        if all(parameter.is_cuda for parameter in model.parameters()):
            self.optimizer_cfg = fused(self.optimizer_cfg)  # type: ignore[has-type]
        return super().__call__(model)

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: bool | None = None,
    ) -> None:
        """Add the parameters of a detector to the groups of the optimiser.

        Args:
            params: Groups, added to in place.
            module: The detector; called by itself for all modules below.
            prefix: Name of ``module``, empty for the detector.
            is_dcn_module: As in mmengine's constructor.

        Raises:
            ValueError: If the detector has no ``backbone``.
        """
        if prefix:
            super().add_params(params, module, prefix, is_dcn_module)
            return
        backbone = getattr(module, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise ValueError(
                f'LayerDecayConstructor: {type(module).__name__} has no backbone whose '
                'layers could be told apart: write optim_wrapper=dict(constructor='
                "'DefaultOptimWrapperConstructor')"
            )
        single: list[dict[str, Any]] = []
        super().add_params(single, module, prefix, is_dcn_module)
        self._apply_layers(single, backbone)
        params += _merged(single)

    def _apply_layers(self, single: list[dict[str, Any]], backbone: nn.Module) -> None:
        names = {id(p): name for name, p in backbone.named_parameters()}
        if not any(id(group['params'][0]) in names for group in single):
            # Frozen as a whole: there are no rates to tell of.
            return
        scales, kept = self._scales(backbone), not_decayed(backbone)
        for group in single:
            name = names.get(id(group['params'][0]))
            if name is None:
                continue
            rate: Any = group.get('lr', self.base_lr)
            group['lr'] = rate * scales[name]
            if name in kept and self.base_wd is not None:
                group['weight_decay'] = 0.0

    def _scales(self, backbone: nn.Module) -> dict[str, float]:
        rate = self.paramwise_cfg['decay_rate']
        top = self.paramwise_cfg.get('backbone_lr_mult', 1.0)
        groups = layer_groups(
            backbone, self.paramwise_cfg.get('decay_type', LAYER_WISE)
        )
        count, lr = len(groups), float(self.base_lr or 0)
        print_log(
            f'{count} layer groups of {type(backbone).__name__}, learning rates from '
            f'{lr * top * rate**count:.3g} (stem) to {lr * top * rate:.3g}; '
            f'{lr:.3g} elsewhere',
            logger='current',
            level=logging.INFO,
        )
        scales = {
            name: top * rate ** (count - number)
            for number, names in enumerate(groups)
            for name in names
        }
        return {**scales, **dict.fromkeys(tokens(backbone), top)}


def fused(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Have Adam and AdamW take their steps in one launch a group, where nobody chose.

    Args:
        optimizer: Settings of an optimiser whose parameters are on a GPU.

    Returns:
        A copy, with ``fused=True`` where that changes nothing but the speed.
    """
    kinds = ('Adam', 'AdamW', torch.optim.Adam, torch.optim.AdamW)
    chosen = {'fused', 'foreach', 'differentiable'} & optimizer.keys()
    fits = optimizer.get('type') in kinds and not chosen
    return {**optimizer, 'fused': True} if fits else dict(optimizer)


def _problems(cfg: Mapping[str, Any], base_lr: float | None) -> list[str]:
    problems = []
    for key in cfg:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            hint = f': write {near[0]}' if near else ''
            if key == 'num_layers':
                hint = ': leave it out, the backbone knows its layers'
            problems.append(f'paramwise_cfg takes no {key!r}{hint}')
    rate = cfg.get('decay_rate')
    if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        problems.append(
            f'decay_rate must be above 0 and at most 1, got {rate!r}: write '
            'paramwise_cfg=dict(decay_rate=0.8)'
        )
    kind = cfg.get('decay_type', LAYER_WISE)
    if kind not in (LAYER_WISE, STAGE_WISE):
        problems.append(
            f"decay_type must be '{LAYER_WISE}' or '{STAGE_WISE}', got {kind!r}"
        )
    top = cfg.get('backbone_lr_mult', 1.0)
    if not isinstance(top, (int, float)) or top <= 0:
        problems.append(f'backbone_lr_mult must be above 0, got {top!r}')
    if base_lr is None:
        problems.append('the optimizer must name its lr')
    return problems


def _merged(single: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join groups of one parameter that have the same options."""
    merged: dict[tuple, dict[str, Any]] = {}
    for group in single:
        options = {key: value for key, value in group.items() if key != 'params'}
        key = tuple(sorted((name, repr(value)) for name, value in options.items()))
        merged.setdefault(key, {**options, 'params': []})['params'] += group['params']
    return list(merged.values())
