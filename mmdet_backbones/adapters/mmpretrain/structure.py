"""Which levels, stages and image sizes a net of mmpretrain has.

Found by building the net on the meta device and running it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from ...levels import PROBE_SIZE
from ...shapes.repeated import repeated_shapes
from ...shapes.structure import Structure, find_structure
from ..structure import RefusedError, SizeRule, WholeStructure, fit_padding, one_line
from ..trim import pass_on
from .nets import Spec, build, maps_of

# Strides of mmpretrain's nets, and patches of 7 or 14 pixels.
_MULTIPLES = (1, 16, 32, 7, 14, 64)
_USUAL_SIZE = (224, 224)
_MOST_LEVELS = 8


@lru_cache(maxsize=64)
def structure_of(spec: Spec) -> WholeStructure:
    """Find levels, stages and image sizes of a net.

    Raises:
        TypeError: If its class does not take an argument.
        ValueError: If its class does not take the arguments, or it cannot be a
            backbone.
    """
    with torch.device('meta'):
        net, count = _with_all_levels(spec)
        net = trainable(net)
        sizes, found = _fit(spec, net, count)
        stages = found.stages
        if found.unused:
            # Parts that no level at all depends on would blur the stages.
            pass_on(net, found.unused)
            stages = examine(spec, net, range(count), sizes).stages
    if not found.levels:
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: none of its maps has the size of the '
            'image over a whole stride'
        )
    return WholeStructure(found.levels, stages, found.unused, sizes, count)


def picks_of(spec: Spec, indices: Sequence[int]) -> tuple[int, ...]:
    """Tell which outputs of a net the levels of these numbers are."""
    # A class that cannot be asked for levels returns all of them.
    return tuple(indices if spec.index_argument is None else range(len(indices)))


def trainable(net: nn.Module) -> nn.Module:
    """Prepare a new net for the search for what depends on what.

    A parameter that its class keeps fixed stays so. It may choose what is computed, as
    the positions in ViG's graphs do, and no gradient tells.
    """
    # Not by the net's own eval(), which returns None in mmpretrain.
    nn.Module.train(net, False)
    for module in net.modules():
        # In eval mode, attention of LeViT reads what it has computed from its parameter
        # without gradients, and the parameter itself in training only.
        if any(isinstance(value, Tensor) for value in vars(module).values()):
            module.training = True
    return net


def examine(
    spec: Spec, net: nn.Module, indices: Sequence[int], sizes: SizeRule
) -> Structure:
    """Find the structure of a net on the meta device.

    Args:
        spec: What ``net`` was built from.
        net: On the meta device.
        indices: Level numbers of the outputs to examine.
        sizes: Which images it takes.

    Returns:
        Its structure; of the levels those of whole strides.
    """
    picks = picks_of(spec, indices)

    def forward(x: Tensor) -> list[Tensor]:
        maps = maps_of(spec, net(x))
        return [maps[pick] for pick in picks]

    return find_structure(
        net,
        forward,
        indices=indices,
        in_channels=spec.in_channels,
        size=sizes.padded(PROBE_SIZE),
        skip_unaligned=True,
    )


def _with_all_levels(spec: Spec) -> tuple[nn.Module, int]:
    """Build a net with every level it has, and count them."""
    if spec.index_argument is None:
        # All outputs are always there.
        net = build(spec, None)
        return net, len(_outputs(spec, net))
    if _has_stages_of_its_own(spec) and (found := _search(spec)) is not None:
        return found
    try:
        count = max(_indices_by_default(spec)) + 1
        return build(spec, range(count)), count
    except ValueError:
        # Classes return the last of their usual number of levels by default, which a
        # net of fewer stages does not have.
        found = _search(spec)
        if found is None:
            raise
        return found


def _has_stages_of_its_own(spec: Spec) -> bool:
    """Whether the usual numbers of levels, those of the named nets, say nothing."""
    custom = not isinstance(spec.arguments.get('arch', ''), str)
    return custom and isinstance(spec.default_indices, Sequence)


def _indices_by_default(spec: Spec) -> Sequence[int]:
    default = spec.default_indices
    if not isinstance(default, Sequence) or min(default) < 0:
        # Only the built net says which level the last one is.
        default = getattr(build(spec, None), str(spec.index_argument), None)
    if default is None:
        raise RefusedError(f'{spec.owner} does not tell how many levels it has')
    return default


def _search(spec: Spec) -> tuple[nn.Module, int] | None:
    for count in range(_MOST_LEVELS, 0, -1):
        with suppress(Exception):
            net = build(spec, range(count))
            if len(_outputs(spec, net)) == count:
                return net, count
    return None


def _outputs(spec: Spec, net: nn.Module) -> list[Tensor]:
    """Run a net on an image of a size that it takes."""
    try:
        return _probe(spec, net, PROBE_SIZE)
    except RefusedError:
        raise
    except Exception:  # whatever a net raises for a size that it does not take
        with _refusing(spec):
            return _probe(spec, net, _own_size(spec))


@contextmanager
def _refusing(spec: Spec) -> Iterator[None]:
    """Say of a net that fails on its own size, too, that it cannot be a backbone."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: it fails on images of {PROBE_SIZE} '
            f'and of {_own_size(spec)}: {one_line(error)}'
        ) from error


def _own_size(spec: Spec) -> tuple[int, int]:
    """Return the one size of a net that takes no other."""
    size = spec.arguments.get('img_size', _USUAL_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _probe(spec: Spec, net: nn.Module, size: tuple[int, int]) -> list[Tensor]:
    with repeated_shapes(), torch.no_grad(), torch.device('meta'):
        return maps_of(spec, net(torch.zeros(2, spec.in_channels, *size)))


def _fit(spec: Spec, net: nn.Module, count: int) -> tuple[SizeRule, Structure]:
    """Find which images a net takes, and its structure for them."""
    padding = fit_padding(partial(_probe, spec, net), _MULTIPLES)
    if padding is not None:
        sizes, levels = padding
        return sizes, replace(examine(spec, net, range(count), sizes), levels=levels)
    sizes = SizeRule(fixed=_own_size(spec))
    with _refusing(spec):
        return sizes, examine(spec, net, range(count), sizes)
