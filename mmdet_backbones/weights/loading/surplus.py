"""What a file has for a block of a net beyond what the net takes.

Such a file is one of another net: with squeeze and excitation, with layer scales, with
registers. Its features mean something else where a part of each block is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..names.dialect import AVERAGED, is_computed
from .matching import Match, match
from .roles import is_counted

if TYPE_CHECKING:
    from .target import Target

# Tensors of a whole net that its features depend on, wherever they stand in a file.
_OF_FEATURES = re.compile(
    r'(?:^|\.)(?:(?:reg|register|storage|dist|distillation|cls|class)_tokens?'
    r'|(?:absolute_)?pos_embed(?:ding)?(?:_\w+|\d)?|position_embeddings?'
    r'|rel_pos_bias\.\w+|(?:norm_pre|pre_norm|ln_pre|pre_layr?norm)\.\w+)$'
)
# Of a training, for images with holes.
_HARMLESS = re.compile(r'(?:^|\.)mask(?:ed)?_(?:token|embed)\w*$')
# Normalisation of an output that a net does not give.
_OUTPUT = re.compile(r'(?:^|backbone\.)norm\d+\.\w+$')


def surplus(
    backbone: Target, found: Match, state_dict: Mapping[str, Tensor]
) -> list[str]:
    """Name what stands in a file beside the tensors of a block that the net takes.

    Blocks that the net does not build at all are no surplus, nor is what it dropped
    because none of its outputs needs it.

    Args:
        backbone: That takes the weights.
        found: What of the file it takes.
        state_dict: Of the file.

    Returns:
        Names, without the prefix.
    """
    used = _short(found)
    names = [name for name in found.unexpected if not _HARMLESS.search(name)]
    suspects = set(_beside(used, names, '_' if _is_averaged(found) else '.'))
    suspects.update(name for name in names if _OF_FEATURES.search(name))
    suspects -= _without_effect(suspects, used, found.prefix, state_dict)
    if suspects and (whole := backbone.uncut()):
        again = match(state_dict, whole, backbone.dialects, (found.prefix,))
        suspects.intersection_update(again.unexpected)
    return [name for name in names if name in suspects]


def between(names: Sequence[str], unexpected: Iterable[str]) -> list[str]:
    """Name what a file has between the tensors that a net takes by the same names.

    A net that builds fewer stages leaves out what comes last.

    Args:
        names: All that the file has of the net, in its order.
        unexpected: Those that the net has not.
    """
    unused = set(unexpected)
    counted = [name for name in names if not is_computed(name)]
    last = max((i for i, name in enumerate(counted) if name not in unused), default=0)
    return [
        name
        for name in counted[:last]
        if name in unused and not _HARMLESS.search(name) and not _OUTPUT.search(name)
    ]


def _without_effect(
    names: Iterable[str],
    used: Iterable[str],
    prefix: str,
    state_dict: Mapping[str, Tensor],
) -> set[str]:
    """Choose biases of zeros of layers that the net takes, as DINOv3 publishes them."""
    layers = {name.removesuffix('.weight') for name in used if name.endswith('.weight')}
    return {
        name
        for name in names
        if name.endswith('.bias')
        and name.removesuffix('.bias') in layers
        and not state_dict[prefix + name].is_meta
        and not bool(state_dict[prefix + name].any())
    }


def _short(found: Match) -> list[str]:
    return [
        name.removeprefix(found.prefix)
        for entry in found.found.values()
        for name in entry.names
    ]


def _is_averaged(found: Match) -> bool:
    # Names of buffers have no dots.
    return found.prefix.startswith(AVERAGED)


def _beside(used: Iterable[str], names: Iterable[str], dot: str) -> Iterator[str]:
    blocks: set[tuple[str, ...]] = set()
    modules: set[str] = set()
    kernels: set[str] = set()
    for name in used:
        parts = name.split(dot)
        blocks.update(_blocks(parts))
        modules.update(parts[:-1][:1])
        kernels.add(name.rpartition(dot)[0])
    lists = {block[:-1] for block in blocks}
    split = {name: name.split(dot) for name in names}
    # Blocks that the net does not build, which have modules where a layer has none.
    unbuilt = {
        block
        for parts in split.values()
        for block in _blocks(parts)
        if len(parts) > len(block) + 1 and not is_counted(parts[len(block)])
    }
    for name, parts in split.items():
        inside = _blocks(parts)
        new = next((block for block in inside if block not in blocks), None)
        if not inside:
            owner, _, leaf = name.rpartition(dot)
            # Caffe's stems have a bias in front of their normalisation, all zeros.
            zero = leaf == 'bias' and owner in kernels
            if len(parts) > 1 and parts[0] in modules and not zero:
                yield name
        # What has a number of its own is a block, or one more layer of one.
        elif new is None or not (
            new == inside[0] or (new[:-1] in lists and new in unbuilt)
        ):
            yield name


def _blocks(parts: list[str]) -> list[tuple[str, ...]]:
    """Name the blocks that a tensor is in, the outermost first."""
    return [
        tuple(parts[: i + 1]) for i, part in enumerate(parts[:-1]) if is_counted(part)
    ]
