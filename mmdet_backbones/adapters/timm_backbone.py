"""Any timm net that gives feature maps, as a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import timm
import torch
from timm.layers import Format
from timm.models import group_parameters
from torch import Tensor, nn

from ..backbones.contract import (
    Backbone,
    Level,
    Preprocess,
    check_frozen_stages,
    select_levels,
)
from ..registry import MODELS
from .timm_keys import EFFICIENTNET_PYTORCH, TIMM, feature_name


def _check_name(model_name: str) -> None:
    if timm.is_model(model_name.split('.')[0]):
        return
    near = get_close_matches(model_name, timm.list_models(), n=3)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(f"timm {timm.__version__} has no model '{model_name}'{hint}")


def _outline(model_name: str) -> tuple[list[Level], list[list[str]]]:
    """Levels of a net, and its parameter names by stage, without its weights."""
    with torch.device('meta'):
        net = timm.create_model(model_name)
    info = getattr(net, 'feature_info', None)
    if not info:
        raise ValueError(
            f"timm's '{model_name}' does not say which feature maps it has and cannot "
            f'be a backbone; timm.list_models() names the others'
        )
    levels = [
        Level(index, entry['num_chs'], entry['reduction'])
        for index, entry in enumerate(info)
    ]
    matcher: Any = net.group_matcher
    groups = group_parameters(net, matcher(coarse=True))
    return levels, [groups[key] for key in sorted(groups)]


@MODELS.register_module()
class TIMMBackbone(Backbone):
    """A timm net under the contract of this package.

    The net stands under ``timm_model``, as in mmpretrain's ``TIMMBackbone``, so the
    checkpoints of detectors trained with that class load. Nothing is downloaded;
    weights come from ``init_cfg``, in timm's own names or those of a source that is
    recognised.

    Args:
        model_name: As in ``timm.create_model``, for example ``'convnext_tiny'``.
        out_indices: Ascending level numbers as timm counts them. Defaults to all.
        out_strides: Ascending strides instead of ``out_indices``.
        in_channels: Channels of the input.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem and
            the first n stages as timm groups them (``group_matcher(coarse=True)``).
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether activations are recomputed in the backward pass.
        drop_path_rate: Rate of stochastic depth; None keeps the net's default.
        init_cfg: See :class:`Backbone`.

    Raises:
        TypeError: If the net does not take one of the arguments.
        ValueError: If the model or a level is not there; all levels are listed.

    Example:
        >>> backbone = TIMMBackbone('resnet18', out_strides=(8, 16, 32))
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """

    dialects = (TIMM, EFFICIENTNET_PYTORCH)

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        _check_name(model_name)
        owner = f"TIMMBackbone('{model_name}')"
        available, groups = _outline(model_name)
        levels = select_levels(available, out_indices, out_strides, owner=owner)
        super().__init__(levels, frozen_stages, norm_eval, init_cfg)
        self.model_name = model_name
        options: dict[str, Any] = {'in_chans': in_channels}
        if drop_path_rate is not None:
            options['drop_path_rate'] = drop_path_rate
        self.timm_model = timm.create_model(
            model_name, features_only=True, out_indices=self.out_indices, **options
        )
        self._drop_tail()
        if with_cp:
            cast(Any, self.timm_model).set_grad_checkpointing(True)
        self._stages = self._find_stages(groups)
        check_frozen_stages(frozen_stages, len(self._stages) - 1, owner)
        self.freeze()

    @property
    def preprocess(self) -> Preprocess:  # type: ignore[override]
        """Mean and standard deviation that timm's own weights were trained with."""
        cfg = cast(Any, self.timm_model).pretrained_cfg
        mean, std = (tuple(255 * v for v in cfg[key]) for key in ('mean', 'std'))
        return Preprocess(mean, std, 'rgb')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H, W) tensor per level."""
        features = self.timm_model(x)
        if getattr(self.timm_model, 'output_fmt', None) == Format.NHWC:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return tuple(features)

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Parts of timm's group ``stage``; 0 is the stem."""
        return [self._part(name) for name in self._stages[stage]]

    def _part(self, name: str) -> nn.Module | nn.Parameter:
        parent, _, leaf = name.rpartition('.')
        return getattr(self.get_submodule(parent), leaf)

    def _drop_tail(self) -> None:
        # timm's mobile nets run every block even if the last ones feed no output,
        # and their parameters would never get a gradient.
        net: Any = self.timm_model
        last = getattr(net, '_stage_out_idx', None)
        if last:
            net.blocks = net.blocks[: max(last)]

    def _find_stages(self, groups: list[list[str]]) -> list[list[str]]:
        """Name the largest parts that hold the parameters of one group each."""
        kept = dict(self.named_parameters())
        stages = []
        for group in groups:
            names = {feature_name(name, kept) for name in group} & kept.keys()
            if names:
                stages.append(_largest_parts(self, names))
        return stages


def _largest_parts(root: nn.Module, names: set[str]) -> list[str]:
    parts: list[str] = []
    for prefix, module in root.named_modules():
        held = {f'{prefix}.{name}' for name, _ in module.named_parameters()}
        inside = any(prefix.startswith(f'{part}.') for part in parts)
        if prefix and held and held <= names and not inside:
            parts.append(prefix)
    covered = tuple(f'{part}.' for part in parts)
    return parts + sorted(name for name in names if not name.startswith(covered))
