"""From the dict of an mmpretrain config to a net that can be adopted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ...backbones.checkpointing import checkpoint_blocks
from ...levels import Level, describe_levels, select_levels
from ...shapes.structure import blocks_of
from ..adoption import Adoptee
from ..outline import RefusedError
from .nets import Spec, build, make_spec
from .outline import examine, picks_of, survey, trainable
from .trim import STRATEGIES, shorten

_Plan = tuple[Callable[..., None] | None, tuple[str, ...]]


def prepare(
    owner: str,
    model: Mapping[str, Any],
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
    in_channels: int,
    with_cp: bool,
) -> Adoptee:
    """Build a net with the chosen levels and nothing that they do not need.

    Args:
        owner: What messages call the backbone.
        model: ``type`` and arguments of a class of mmpretrain.
        out_indices: Level numbers as that class counts them, or None.
        out_strides: Strides instead of ``out_indices``, or None. Of the levels that
            share a stride the deepest one has it, except for the convolution in front
            of a classifier.
        in_channels: Channels of the image.
        with_cp: Whether blocks recompute their activations in the backward pass.

    Raises:
        TypeError: If an argument is unknown or of the wrong type.
        ValueError: If the class or a level is not there, or the net is no backbone.
    """
    spec = make_spec(owner, model, in_channels)
    found = survey(spec)
    levels = choose(spec, found.levels, out_indices, out_strides)
    indices = tuple(level.index for level in levels)
    strategy, unused = _plan(spec, indices)
    net = build(spec, indices)
    if strategy is not None:
        strategy(net, unused, indices[-1] + 1, found.count)
    if with_cp:
        checkpoint_blocks(blocks(net, found.stages))
    picks = picks_of(spec, indices)
    return Adoptee(net, levels, picks, found.stages, found.sizes, owner)


def choose(
    spec: Spec,
    levels: Sequence[Level],
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
) -> tuple[Level, ...]:
    """Choose levels; by stride never the convolution in front of a classifier."""
    if out_strides is not None and out_indices is None and spec.has_head_level:
        levels = levels[:-1]
    return select_levels(levels, out_indices, out_strides, owner=spec.owner)


def blocks(net: nn.Module, stages: Sequence[Sequence[str]]) -> list[nn.Module]:
    """List the blocks of all stages but the stem, for activation checkpointing."""
    kept = {name for name, _ in net.named_modules()}
    return [
        block
        for stage in stages[1:]
        for name in stage
        if name in kept
        for block in blocks_of(net.get_submodule(name))
        # A single layer has nothing to recompute but itself.
        if any(True for _ in block.children())
    ]


@lru_cache(maxsize=64)
def _plan(spec: Spec, indices: tuple[int, ...]) -> _Plan:
    """Find on the meta device what can go, and how."""
    found = survey(spec)
    if len(indices) == found.count and not found.unused:
        return None, ()
    wanted = tuple(level for level in found.levels if level.index in indices)
    # Mostly it is what the deeper levels add. The full search costs a run of the net.
    deeper = found.stages[len(found.stages) - (found.count - indices[-1] - 1) :]
    guess = (*(name for stage in deeper for name in stage), *found.unused)
    if _leaves_nothing(spec, shorten, guess, indices, wanted):
        return shorten, guess
    with torch.device('meta'):
        net = trainable(build(spec, indices))
    unused = examine(spec, net, indices, found.sizes).unused
    if not unused:
        return None, ()
    for strategy in STRATEGIES:
        if _leaves_nothing(spec, strategy, unused, indices, wanted):
            return strategy, unused
    raise RefusedError(
        f'{spec.owner}: no output of out_indices={indices} depends on '
        f'{", ".join(unused[:5])}, and this class cannot run without: such parameters '
        'would get no gradient. Request the deepest level too; the levels are '
        f'{describe_levels(found.levels)}'
    )


def _leaves_nothing(
    spec: Spec,
    strategy: Callable[..., None],
    unused: tuple[str, ...],
    indices: tuple[int, ...],
    wanted: tuple[Level, ...],
) -> bool:
    """Try a way to take parts out: the levels stay, nothing useless is left."""
    found = survey(spec)
    try:
        with torch.device('meta'):
            net = trainable(build(spec, indices))
            strategy(net, unused, indices[-1] + 1, found.count)
        anatomy = examine(spec, net, indices, found.sizes)
    except Exception:  # whatever a net raises that needs the part after all
        return False
    return anatomy.levels == wanted and not anatomy.unused
