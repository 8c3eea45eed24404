"""LoRA: a net that is kept as it is, while adapters of low rank learn beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ArgumentTypeError
from ..levels import PROBE_SIZE
from ..shapes.build import fixed_size, idle_parameters
from ..shapes.structure import replace_part

# How timm, mmpretrain, torchvision and transformers name the linear layers of an
# attention, and, in lower case, part of the name of a module that is one.
_LAYERS = (
    *('qkv', 'q', 'k', 'v', 'kv', 'q_proj', 'k_proj', 'v_proj', 'proj', 'out_proj'),
    *('to_qkv', 'merge', 'query', 'key', 'value', 'dense', 'o_proj'),
)
_ATTENTION = ('attn', 'attention')
_MARK = '.lora_'
_ADAPTER = 'default'


@dataclass(frozen=True)
class Lora:
    """Adapters of LoRA (arXiv 2106.09685, section 4.1).

    Attributes:
        r: Rank of an adapter.
        alpha: An adapter is multiplied by ``alpha / r``.
        dropout: Of what an adapter reads, in training.
        targets: Ends of the names of the linear layers that get one; those of all
            attentions if None.
    """

    r: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None


def read_lora(given: object, owner: str) -> Lora:
    """Read the argument ``lora`` of a backbone.

    Args:
        given: A dict of the attributes of :class:`Lora`.
        owner: Name of the backbone, for the message.

    Raises:
        TypeError: If it is no dict.
        ValueError: Names everything that is wrong with it.
    """
    usual = dict(r=Lora.r, alpha=Lora.alpha)
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(
            f'{owner}: lora must be a dict, got {given!r}: write lora={usual!r}',
            dict(lora=usual),
        )
    found = dict(given)
    known = [field.name for field in fields(Lora)]
    problems = [f'it takes no {name!r}' for name in found if name not in known]
    if problems:
        problems[-1] += f', only {", ".join(known)}'
    right = {k: v for k, v in found.items() if k in known}
    for name, what in _wrong(right):
        problems.append(f'{name} must be {what}, got {right.pop(name)!r}')
    if problems:
        raise ArgumentError(
            f'{owner}: lora: {"; ".join(problems)}: write lora={right!r}',
            dict(lora=right),
        )
    if right.get('targets') is not None:
        right['targets'] = tuple(right['targets'])
    return Lora(**right)


def _wrong(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rank, alpha = given.get('r', 1), given.get('alpha', 1)
    dropout, targets = given.get('dropout', 0), given.get('targets')
    if type(rank) is not int or rank < 1:
        yield 'r', 'a whole number, 1 or more'
    if not isinstance(alpha, (int, float)) or not alpha > 0:
        yield 'alpha', 'a number above 0'
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        yield 'dropout', 'a number from 0 to below 1'
    listed = isinstance(targets, (list, tuple)) and targets
    if targets is not None and not (
        listed and all(isinstance(target, str) for target in targets)
    ):
        yield 'targets', "a list of names, such as ['qkv', 'proj']"


def add_lora(backbone: Any, lora: Lora, owner: str, in_channels: int = 3) -> None:
    """Give linear layers of a backbone adapters, by the library peft.

    The layers keep the names of their parameters; adapters add ``lora_A`` and
    ``lora_B`` below them. Layers of frozen stages get none.

    Args:
        backbone: A ``Backbone`` with all of its parts; it computes the same afterwards.
        lora: The adapters.
        owner: Name of the backbone, for messages.
        in_channels: Channels of its images.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If there is no such layer, all of the net is frozen, or what the
            net computes does not pass through one of the layers.
    """
    if backbone.wholly_frozen:
        raise ArgumentError(
            f"{owner}: frozen_stages='all' leaves nothing that lora could train; lora "
            'keeps the net itself as it is: write frozen_stages=-1',
            dict(frozen_stages=-1),
        )
    targets = _targets(backbone, lora, owner)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            f'{owner}: lora needs peft, which cannot be imported ({error}): write\n'
            '  pip install "mmdet_backbones[lora]"'
        ) from error
    config = LoraConfig(
        r=lora.r,
        lora_alpha=cast(int, lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(config, backbone)
    del backbone.peft_config
    for layer in _adapted(backbone).values():
        _keep_names(layer)
    backbone.lora = lora
    _require_effect(backbone, owner, in_channels)


def _targets(backbone: Any, lora: Lora, owner: str) -> list[str]:
    """Names of the layers that get adapters."""
    frozen = {
        module
        for part in backbone.frozen_parts()
        if isinstance(part, nn.Module)
        for module in part.modules()
    }
    linear = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and module not in frozen
    ]
    if lora.targets is None:
        found = [name for name in linear if _in_attention(name)]
        missing = [] if found else ['attention']
    else:
        found = [n for n in linear if any(_ends(n, t) for t in lora.targets)]
        missing = [t for t in lora.targets if not any(_ends(n, t) for n in linear)]
    if not missing:
        return found
    ends = _last(linear)
    problem = f'{owner}: lora finds no linear layer of {", ".join(map(repr, missing))}'
    if not ends:
        raise ArgumentError(
            f'{problem}, and no other that trains: write lora=None', dict(lora=None)
        )
    kept = [t for t in lora.targets or () if t not in missing] or ends
    written = _written(lora, kept)
    raise ArgumentError(
        f'{problem}; those that there are end in {", ".join(ends)}: write '
        f'lora={written!r}',
        dict(lora=written),
    )


def _in_attention(name: str) -> bool:
    above, _, end = name.rpartition('.')
    return end in _LAYERS and any(word in above.lower() for word in _ATTENTION)


def _ends(name: str, target: str) -> bool:
    return f'.{name}'.endswith(f'.{target}')


def _adapted(module: nn.Module) -> dict[str, Any]:
    """The layers with adapters, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        # Of peft, which is not imported for nets without any.
        if hasattr(part, 'lora_A') and hasattr(part, 'base_layer')
    }


def _keep_names(layer: Any) -> None:
    """Let parameters of the layer inside have no other names than before.

    It is no submodule any more, but shares the dict of parameters: both see one set of
    tensors, whatever replaces or moves them.
    """
    inner = layer._modules.pop('base_layer')
    object.__setattr__(layer, 'base_layer', inner)
    layer._parameters = inner._parameters


def _require_effect(backbone: Any, owner: str, in_channels: int) -> None:
    """Raise a ``ValueError`` if an adapter never gets a gradient."""
    # On the meta device, and without a copy of the weights.
    tensors = chain(backbone.parameters(), backbone.buffers())
    memo: dict[int, Any] = {}
    for tensor in tensors:
        there = torch.empty_like(tensor, device='meta')
        learns = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(there, False) if learns else there
    twin = deepcopy(backbone, memo).to('meta')
    twin.requires_grad_(True)
    size = fixed_size(backbone) or PROBE_SIZE
    idle = idle_parameters(twin, size, in_channels)
    layers = list(dict.fromkeys(n.partition(_MARK)[0] for n in idle if _MARK in n))
    if not layers:
        return
    rest = _last(name for name in _adapted(backbone) if name not in layers)
    rest = [name for name in rest if name not in _last(layers)]
    written = _written(backbone.lora, rest) if rest else None
    shown = ', '.join(layers[:3]) + (', ...' if layers[3:] else '')
    raise ArgumentError(
        f'{owner}: lora would do nothing in {shown}: the net reads the weights of '
        'these layers and never calls them, as torch.nn.MultiheadAttention and '
        f"torchvision's Swin do: write lora={written!r}",
        dict(lora=written),
    )


def _written(lora: Lora, targets: Iterable[str]) -> dict[str, Any]:
    return {**asdict(lora), 'targets': list(targets)}


def _last(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition('.')[2] for name in names))


def is_adapter(name: str) -> bool:
    """Tell whether a parameter is one of an adapter."""
    return _MARK in name


def reset_adapters(module: nn.Module) -> None:
    """Draw adapters anew, such that they change nothing."""
    for layer in _adapted(module).values():
        layer.reset_lora_parameters(_ADAPTER, True)


def with_own_adapters(
    module: nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Add to the weights of a net without adapters those that a module has.

    Args:
        module: With adapters.
        state_dict: What is loaded into it; changed in place.
        prefix: Of the names of the module in it.
    """
    inside = [name for name in state_dict if name.startswith(prefix)]
    if inside and not any(map(is_adapter, inside)):
        own: Mapping[str, Tensor] = module.state_dict(prefix=prefix)
        state_dict.update({name: own[name] for name in own if is_adapter(name)})


@contextmanager
def bare(module: nn.Module) -> Iterator[None]:
    """Take the adapters off for a while."""
    adapted = _adapted(module)
    for name, layer in adapted.items():
        replace_part(module, name, layer.base_layer)
    try:
        yield
    finally:
        for name, layer in adapted.items():
            replace_part(module, name, layer)


def merge_lora(module: nn.Module) -> nn.Module:
    """Add adapters to the weights that they stand beside, and take them off.

    The parameters are those of the net without adapters, by name and shape; none of
    them trains by itself.

    Args:
        module: A backbone or a detector; changed in place. Without adapters it stays
            as it is.

    Returns:
        The module.

    Example:
        >>> backbone = TIMMBackbone('test_vit', lora=dict(r=4))
        >>> len(backbone.state_dict()) - len(merge_lora(backbone).state_dict())
        16
    """
    for name, layer in _adapted(module).items():
        layer.merge(safe_merge=False)
        replace_part(module, name, layer.base_layer)
    parts: Iterable[Any] = module.modules()
    for part in parts:
        if isinstance(getattr(part, 'lora', None), Lora):
            part.lora = None
    return module
