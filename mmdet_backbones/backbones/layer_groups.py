"""Groups of layers of a backbone, shallow to deep, for layer-wise learning rates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from ..shapes.build import on_meta
from ..shapes.structure import blocks_of, find_structure, part_of
from ..weights.names.libraries import without_root
from .contract import Backbone

LAYER_WISE, STAGE_WISE = 'layer_wise', 'stage_wise'
# Of no image, as they are before the first block.
_TOKENS = ('cls_token', 'class_token', 'dist_token', 'reg_token', 'register_tokens')
# Bare parameters that no published recipe decays: position embeddings and tokens.
_NO_DECAY = (
    *_TOKENS,
    'pos_embed',
    'position_embedding',
    'pos_embedding',
    'mask_token',
    'relative_position_bias_table',
    'rel_pos',
    'logit_scale',
)
_ADAPTER = re.compile(r'\.lora_\w+\.\w+\.')


def layer_groups(backbone: nn.Module, decay_type: str = LAYER_WISE) -> list[list[str]]:
    """Sort the parameters of a backbone by depth.

    A group is a block, or a stage for ``'stage_wise'``. Layers between blocks go with
    the block after them, those behind the last block of a stage with that one. timm's
    nets say their groups themselves (``group_matcher``). A net of another library is
    taken apart by one pass on the meta device.

    Args:
        backbone: One of ours, or any module that maps (N, 3, H, W) to feature maps.
        decay_type: ``'layer_wise'`` or ``'stage_wise'``.

    Returns:
        Names of parameters, the stem's group first. Each parameter stands in exactly
        one group; no group is empty.
    """
    names = [name for name, _ in backbone.named_parameters()]
    number: dict[str, float] = {}
    if decay_type == LAYER_WISE and hasattr(backbone, 'timm_model'):
        number = _of_timm(backbone)
    if not number:
        number = _of_stages(backbone, decay_type)
    # What belongs to no stage, such as the normalisation of an output, is on top.
    last = max(number.values(), default=0)
    by_depth: dict[float, list[str]] = {}
    for name in names:
        by_depth.setdefault(number.get(name, last), []).append(name)
    return [by_depth[depth] for depth in sorted(by_depth)]


def not_decayed(backbone: nn.Module) -> set[str]:
    """Names of embeddings and the like that take no weight decay.

    timm's nets name theirs (``no_weight_decay``); for all others it is position
    embeddings, relative position biases, tokens and the scale of logits.
    """
    names = [name for name, _ in backbone.named_parameters()]
    found = {n for n in names if any(key in n for key in _NO_DECAY)}
    if hasattr(backbone, 'timm_model'):
        found.update(_timm_no_decay(backbone))
    return found & set(names)


def tokens(backbone: nn.Module) -> set[str]:
    """Names of class and register tokens, which belong to the whole net."""
    names = (name for name, _ in backbone.named_parameters())
    return {n for n in names if n.rpartition('.')[2] in _TOKENS}


def _of_stages(backbone: nn.Module, decay_type: str) -> dict[str, float]:
    names = {id(p): name for name, p in backbone.named_parameters()}
    number: dict[str, float] = {}
    depth = 0
    for stage, parts in enumerate(_stages(backbone)):
        blocks = _blocks(parts) if stage and decay_type == LAYER_WISE else [parts]
        for block in blocks:
            held = [names[id(p)] for part in block for p in _parameters(part)]
            fresh = [name for name in held if name not in number]
            number.update(dict.fromkeys(fresh, depth))
            depth += bool(fresh)
    return number


def _blocks(
    parts: Sequence[nn.Module | nn.Parameter],
) -> list[list[nn.Module | nn.Parameter]]:
    """Blocks of a stage, each with what stands before it and has no block of its own.

    A part of a stage may be a block itself, or hold many.
    """
    found: list[list[nn.Module | nn.Parameter]] = []
    waiting: list[nn.Module | nn.Parameter] = []
    for part in parts:
        blocks = _blocks_of(part) if isinstance(part, nn.Module) else []
        if not blocks or not any(True for block in blocks for _ in block.children()):
            # A single layer or a bare parameter.
            waiting.append(part)
            continue
        inside = {id(p) for block in blocks for p in block.parameters()}
        rest = [p for p in _parameters(part) if id(p) not in inside]
        found += [[block] for block in blocks]
        first = found[len(found) - len(blocks)]
        first += [*waiting, *rest]
        waiting = []
    if waiting and found:
        found[-1] += waiting
    return found or [waiting]


def _blocks_of(part: nn.Module) -> list[nn.Module]:
    # torch.fx rebuilds a Sequential as a bare module with numbered children.
    if type(part) is nn.Module and all(n.isdigit() for n, _ in part.named_children()):
        return [child for child in part.children() if _parameters(child)]
    # mmdet's HRNet puts None into the lists of what joins its branches.
    whole = all(m is not None for inner in part.modules() for m in _members(inner))
    return blocks_of(part) if whole else [part]


def _members(part: nn.Module) -> list[nn.Module | None]:
    return list(part._modules.values()) if isinstance(part, nn.ModuleList) else []


def _stages(backbone: nn.Module) -> list[Sequence[nn.Module | nn.Parameter]]:
    if isinstance(backbone, Backbone):
        return backbone.built_stages()
    copy = deepcopy(backbone).to('meta')
    copy.eval()
    copy.requires_grad_(True)
    parts = find_structure(copy, copy, skip_unaligned=True).stages
    return [[part_of(backbone, name) for name in stage] for stage in parts]


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def _of_timm(backbone: Any) -> dict[str, float]:
    """Depth by name as the net's ``group_matcher`` has it; empty if it has none."""
    from timm.models import group_parameters

    full = _classifier(backbone)
    if not hasattr(full, 'group_matcher'):
        return {}
    numbers: Mapping[str, int] = group_parameters(
        full, full.group_matcher(coarse=False), reverse=True
    )
    return _renamed(backbone, numbers)


def _timm_no_decay(backbone: Any) -> set[str]:
    full = _classifier(backbone)
    if not hasattr(full, 'no_weight_decay'):
        return set()
    return set(_renamed(backbone, dict.fromkeys(full.no_weight_decay(), 0)))


def _classifier(backbone: Any) -> Any:
    """The whole net of timm on the meta device: extractors have lost its methods."""
    import timm

    return on_meta(lambda: timm.create_model(backbone.model_name))


def _renamed(backbone: nn.Module, values: Mapping[str, int]) -> dict[str, float]:
    """The same values under the names of the extractor of feature maps.

    timm wraps some nets into it and joins the names of others with underscores.
    """
    joined = {name.replace('.', '_'): value for name, value in values.items()}
    found: dict[str, float] = {}
    for name, _ in backbone.named_parameters():
        # An adapter learns as fast as the layer that it stands beside.
        plain = _ADAPTER.sub('.', without_root(name))
        inner = plain.replace('.', '_')
        if inner in joined:
            found[name] = joined[inner]
    return found
