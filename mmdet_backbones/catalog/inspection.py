"""What a backbone looks like: one forward pass on the meta device, no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from ..backbones.contract import Backbone
from ..errors import UserError, explain
from ..levels import PROBE_SIZE, Level
from ..shapes.build import build_weightless, fixed_size, forward_weightless
from ..shapes.counting import counting
from ..shapes.repeated import repeated_shapes
from ..shapes.structure import (
    count_parameters,
    find_structure,
    levels_of_outputs,
    part_of,
)
from .entries import find
from .figures import COUNT_SIZE
from .published import Published, published_weights


@dataclass(frozen=True)
class InspectedLevel(Level):
    """A level and the size of its map.

    Attributes:
        height: Of the map for the image that was asked for.
        width: Of the same map.
    """

    height: int
    width: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_backbone` found.

    Attributes:
        name: Of the backbone.
        config: That it was built from.
        size: Height and width of the image.
        in_channels: Channels of the image.
        levels: Shallow to deep.
        stages: Parameters by stage, the stem first.
        parameters: In all, without any head.
        macs: Multiply-adds of a forward pass of one image. Additions,
            normalisation, activations and pooling do not count.
        declared: The levels that the backbone says it has, if they are others.
        weights: What its library publishes for it.
    """

    name: str
    config: Mapping[str, Any]
    size: tuple[int, int]
    in_channels: int
    levels: tuple[InspectedLevel, ...]
    stages: Mapping[str, int]
    parameters: int
    macs: int
    declared: tuple[Level, ...] = ()
    weights: tuple[Published, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)


def inspect_backbone(
    name: str, size: tuple[int, int] = COUNT_SIZE, in_channels: int = 3
) -> Inspection:
    """Look at one backbone of the catalog, with all of its levels.

    Args:
        name: As :func:`~mmdet_backbones.catalog.resolve` takes it.
        size: Height and width of the image.
        in_channels: Channels of the image.

    Returns:
        What it looks like.

    Raises:
        UserError: A ``ValueError``, if there is no such backbone, or it does not take
            the image.
    """
    if min(*size, in_channels) < 1:
        raise UserError(
            'height, width and channels must be positive integers, got '
            f'{size[0]} x {size[1]} and {in_channels}'
        )
    entry = find(name)
    config = {**entry.config, **entry.every_level}
    if in_channels != 3:
        config['in_channels'] = in_channels
    net = build_weightless(config)
    outputs, levels, macs = _run(net, name, size, in_channels)
    maps = [
        InspectedLevel(**asdict(level), height=output.shape[2], width=output.shape[3])
        for level, output in zip(levels, outputs, strict=True)
    ]
    declared = tuple(getattr(net, 'levels', levels))
    return Inspection(
        name,
        config,
        size,
        in_channels,
        tuple(maps),
        stage_parameters(net, size, in_channels),
        count_parameters(net),
        macs,
        () if declared == tuple(levels) else declared,
        published_weights(entry),
    )


def _run(
    net: nn.Module, name: str, size: tuple[int, int], in_channels: int
) -> tuple[Sequence[Tensor], list[Level], int]:
    """Outputs, levels and multiply-adds of one forward pass."""
    try:
        outputs, macs = forward_counted(net, size, in_channels)
        levels = levels_of_outputs(net, outputs, size)
    except (ValueError, AssertionError, RuntimeError) as error:
        # Of size or channels: what is wrong with the net itself shows in the build.
        fixed = fixed_size(net)
        hint = f'. To inspect it write --size {fixed[0]} {fixed[1]}' if fixed else ''
        raise UserError(
            f'{name} does not take an image of {in_channels} channels and '
            f'{size[0]} x {size[1]}: {explain(error) or type(error).__name__}{hint}'
        ) from error
    return outputs, levels, macs


def forward_counted(
    net: nn.Module, size: tuple[int, int] = COUNT_SIZE, in_channels: int = 3
) -> tuple[Sequence[Tensor], int]:
    """Run a net on the meta device and count its multiply-adds.

    Args:
        net: As :func:`~mmdet_backbones.shapes.build.forward_weightless` takes it.
        size: Height and width of the image.
        in_channels: Channels of the image.

    Returns:
        Its outputs, and the multiply-adds for one image.
    """
    with repeated_shapes(), counting(net) as counter:
        outputs = forward_weightless(net, size, in_channels)
    # The counter of torch counts a multiply-add as two.
    return outputs, counter.get_total_flops() // 2


def stage_parameters(
    net: nn.Module, size: tuple[int, int] = PROBE_SIZE, in_channels: int = 3
) -> dict[str, int]:
    """Count the parameters of every stage, as ``frozen_stages`` counts stages.

    Args:
        net: On the meta device. A net without ``stage_modules`` is taken apart: a
            stage is what a level adds to the level before it.
        size: Height and width of an image that it takes.
        in_channels: Channels of the image.

    Returns:
        Parameters by ``'stem'``, ``'stage 1'``, ...; ``'other'`` for those in no stage.
    """
    if isinstance(net, Backbone):
        stages = list(net.built_stages())
    else:
        structure = find_structure(net, net, in_channels=in_channels, size=size)
        stages = [[part_of(net, name) for name in names] for names in structure.stages]
    counts = [sum(map(count_parameters, parts)) for parts in stages]
    named = {f'stage {n}' if n else 'stem': c for n, c in enumerate(counts)}
    other = count_parameters(net) - sum(counts)
    return {**named, 'other': other} if other else named


def level_table(inspection: Inspection) -> Table:
    """Lay out the levels of one backbone."""
    height, width = inspection.size
    table = Table('index', 'channels', 'stride', f'map at {height} x {width}', box=None)
    for level in inspection.levels:
        size = f'{level.height} x {level.width}'
        table.add_row(str(level.index), str(level.channels), str(level.stride), size)
    return table


def stage_table(inspection: Inspection) -> Table:
    """Lay out the parameters of one backbone by stage."""
    table = Table(box=None)
    table.add_column('stage')
    table.add_column('parameters', justify='right')
    for name, count in inspection.stages.items():
        table.add_row(name, f'{count:,}')
    table.add_row('all', f'{inspection.parameters:,}', style='bold')
    return table


def weights_table(inspection: Inspection) -> Table:
    """Lay out the published weights of one backbone, the usual ones marked."""
    table = Table(box=None)
    table.add_column('weights', overflow='fold')
    table.add_column('licence', no_wrap=True)
    table.add_column('top-1', justify='right', no_wrap=True)
    for found in inspection.weights:
        top1 = '-' if found.top1 is None else f'{found.top1:.1f}'
        usual = ' (usual)' if found.usual else ''
        style = 'bold' if found.usual else ''
        table.add_row(f'{found.name}{usual}', found.licence, top1, style=style)
    return table
