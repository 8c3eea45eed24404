"""From the config of a net of transformers to one that is ready to be a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...backbones.checkpointing import checkpoint_blocks
from ...levels import select_levels
from ..adapted import AdaptedNet, blocks_in
from .nets import NetSpec, build, whole
from .structure import plan_of, structure_of


def prepare(
    spec: NetSpec,
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
    with_cp: bool,
) -> AdaptedNet:
    """Build a net with the chosen levels and nothing that they do not need.

    Args:
        spec: The net.
        out_indices: Level numbers as transformers counts them, or None.
        out_strides: Strides instead of ``out_indices``, or None.
        with_cp: Whether blocks recompute their activations in the backward pass.

    Raises:
        ValueError: If a level is not there, or the net is no backbone.
    """
    found = structure_of(spec)
    levels = select_levels(found.levels, out_indices, out_strides, owner=spec.owner)
    indices = tuple(level.index for level in levels)
    plan = plan_of(spec, indices)
    net = build(spec, indices)
    plan.apply(net)
    if with_cp:
        checkpoint_blocks(blocks_in(net, found.stages))
    every = tuple(level.index for level in found.levels)
    return AdaptedNet(
        net,
        levels,
        tuple(range(len(indices))),
        found.stages,
        found.sizes,
        spec.owner,
        partial(whole, spec, every),
        plan.idle,
    )
