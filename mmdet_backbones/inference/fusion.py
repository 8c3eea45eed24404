"""Batch normalisation folded into the convolutions before it, for inference."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..backbones.frozen_norm import FrozenBN
from ..backbones.lora import merge_lora
from .fusion_trace import Pairs, find_pairs, has_own_hooks, trace_inputs
from .parts import check_modes, make_fast

_PLAIN = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    FrozenBN,
)
# Module and class of layers that need not be imported: a net that holds one was.
_ELSEWHERE = (
    ('torchvision.ops.misc', 'FrozenBatchNorm2d'),
    ('timm.layers.norm_act', 'BatchNormAct2d'),
    ('timm.layers.norm_act', 'SyncBatchNormAct'),
    ('timm.layers.norm_act', 'FrozenBatchNormAct2d'),
    ('mmcv.ops.sync_bn', 'SyncBatchNorm'),
    ('mmdet_backbones.compat.sync_norm_act', 'MMSyncBatchNormAct'),
)


@dataclass(frozen=True)
class Fusion:
    """What :func:`fuse_for_inference` did.

    Attributes:
        folded: Number of normalisation layers that are no more.
        left: Why the others are still there, by the name of the layer.
    """

    folded: int
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in one line."""
        text = f'Folded {self.folded} layers of batch normalisation'
        if self.left:
            text += f'; {len(self.left)} are left: {dict(self.left)}'
        return text


def fuse_for_inference(
    module: nn.Module,
    compile: bool | str | None = False,
    *,
    dtype: torch.dtype | None = None,
    inplace: bool = False,
    example: Sequence[Any] | None = None,
) -> nn.Module:
    """Fold batch normalisation into convolutions, for a net or a whole detector.

    Adapters of LoRA are merged into the weights that they stand beside. One pass over a
    small blank image shows which convolution each normalisation
    follows. A pair is folded if nothing else sees what the convolution returns, by
    ``torch.nn.utils.fusion`` in double precision. Layers that activate too (timm's)
    keep their activation. Everything else is left as it is: convolutions that change
    their weight in each pass or are deformable, normalisation of sums and
    concatenations, branches that the pass does not reach.

    Args:
        module: A backbone, a detector of mmdet, or any net that takes a batch of
            images. It is not changed.
        compile: Whether the result is compiled by ``torch.compile``; of a detector
            the backbone, the neck and the heads are, at their first call.
            ``'reduce-overhead'`` has torch make CUDA graphs of them too.
            ``'cuda-graph'`` compiles nothing: on a GPU each part is captured as it is,
            for a few sizes of images, each when it comes for the second time; others
            run as ever, which is logged once. Heads of regions, whose number
            changes, and of queries are never captured.
        dtype: ``torch.float16`` or ``torch.bfloat16`` to run those parts under
            autocast, with weights of that type already. What a detector reads of its
            heads is float32 again; a net alone returns what autocast leaves.
        inplace: Change ``module`` itself, which saves the memory of a copy.
        example: Positional arguments that ``module`` can be called with, if it takes
            something else than images, or images of one size only.

    Returns:
        The folded module in eval mode, with a :class:`Fusion` in its attribute
        ``fused``. Without normalisation it cannot be trained: its parameters take no
        gradient, and ``train()`` raises a ``RuntimeError``, as does loading the weights
        of a net that is not folded.

    Raises:
        ValueError: If no image of the usual sizes can be run through ``module``, or
            ``compile`` or ``dtype`` is something else, or ``'cuda-graph'`` where there
            is no GPU.

    Example:
        >>> from mmdet_backbones import TIMMBackbone
        >>> fuse_for_inference(TIMMBackbone('resnet18')).fused.folded
        20
    """
    check_modes(module, compile, dtype)
    module = module if inplace else deepcopy(module)
    if not isinstance(getattr(module, 'fused', None), Fusion):
        # mmdet's own nets return None from eval().
        module.eval()
        merge_lora(module)
        module.fused = _fuse(module, example)  # type: ignore[assignment]
        module.requires_grad_(False)
        # On the instance, so that the class stays as it is; a partial of a function
        # of this module can be copied and pickled with the net.
        module.train = partial(_train, module)  # type: ignore[method-assign]
    make_fast(module, compile, dtype)
    return module


def fastest(detector: nn.Module, inplace: bool = False) -> nn.Module:
    """Fold a detector, and do what else is fast where it is.

    On a GPU its parts run in float16 and are replayed as CUDA graphs. Convolutions are
    channels-last.

    Args:
        detector: On its device, with its weights.
        inplace: As for :func:`fuse_for_inference`.

    Raises:
        ValueError: As :func:`fuse_for_inference`.
    """
    on_gpu = next(detector.parameters()).is_cuda
    fast = fuse_for_inference(
        detector,
        'cuda-graph' if on_gpu else False,
        dtype=torch.float16 if on_gpu else None,
        inplace=inplace,
    )
    more = 'float16 and CUDA graphs' if on_gpu else 'no GPU, so in float32'
    print_log(f'{fast.fused}; channels-last, {more}', 'current')
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _train(module: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise RuntimeError(
            f'{type(module).__name__} was folded for inference by '
            'fuse_for_inference and has lost its batch normalisation: train the '
            'module that was folded, which is unchanged unless inplace=True was given'
        )
    return type(module).train(module, False)


def _refuse_unfolded(
    folded: Sequence[str], state_dict: Mapping[str, Any], prefix: str, *_: Any
) -> None:
    # Loading would replace weights and keep biases, and warn at most.
    if any(f'{prefix}{name}.running_mean' in state_dict for name in folded):
        raise RuntimeError(
            'these weights are of a net that is not folded: load them first and call '
            'fuse_for_inference after that'
        )


def _fuse(module: nn.Module, example: Sequence[Any] | None) -> Fusion:
    classes = _classes()
    norms: dict[str, Any] = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, *classes))
    }
    if not norms:
        return Fusion(0)
    left = {name: _unfit(layer, classes) for name, layer in norms.items()}
    fit = [layer for name, layer in norms.items() if left[name] is None]
    pairs = find_pairs(module, fit, list(trace_inputs(module, example)))
    for name, layer in norms.items():
        left[name] = left[name] or pairs.problems.get(layer)
    _fold(module, pairs)
    kept = {name: reason for name, reason in left.items() if reason is not None}
    folded = [name for name in norms if name not in kept]
    module._register_load_state_dict_pre_hook(partial(_refuse_unfolded, folded))
    return Fusion(len(folded), kept)


def _classes() -> tuple[type[nn.Module], ...]:
    found = [
        getattr(sys.modules[module], name, None)
        for module, name in _ELSEWHERE
        if module in sys.modules
    ]
    return (*_PLAIN, *(cls for cls in found if cls is not None))


def _unfit(layer: nn.Module, classes: Sequence[type[nn.Module]]) -> str | None:
    """Why a layer cannot be folded whatever comes before it, or None."""
    # A subclass with a forward of its own may do anything.
    if type(layer).forward not in [cls.forward for cls in classes]:
        return f'{type(layer).__name__} does more than normalise'
    if getattr(layer, 'running_mean', None) is None:
        return 'it has no running statistics'
    if layer.training:
        return 'it stays in training mode'
    if has_own_hooks(layer):
        return 'hooks are registered on it'
    return None


@torch.no_grad()
def _fold(module: nn.Module, pairs: Pairs) -> None:
    stand_ins = {norm: _rest(norm) for norm in pairs.convs}
    for norm, convs in pairs.convs.items():
        for conv in convs:
            _fold_pair(conv, norm)
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in stand_ins:
                parent._modules[name] = stand_ins[child]


def _rest(norm: nn.Module) -> nn.Module:
    """What a layer does after normalising."""
    parts = [getattr(norm, name, None) for name in ('drop', 'act')]
    found = [p for p in parts if p is not None and not isinstance(p, nn.Identity)]
    if not found:
        return nn.Identity()
    return found[0] if len(found) == 1 else nn.Sequential(*found)


def _fold_pair(conv: _ConvNd, norm: Any) -> None:
    def exact(values: Tensor | None) -> Any:
        return None if values is None else values.detach().double()

    weight, bias = fuse_conv_bn_weights(
        exact(conv.weight),
        exact(conv.bias),
        exact(norm.running_mean),
        exact(norm.running_var),
        norm.eps,
        exact(norm.weight),
        exact(norm.bias),
        transpose=conv.transposed,
    )
    # New parameters: another layer may share the old ones.
    conv.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
