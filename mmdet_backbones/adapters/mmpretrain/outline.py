"""Which levels, stages and image sizes a net of mmpretrain has.

Found by building the net on the meta device and running it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...levels import PROBE_SIZE, Level
from ...shapes.repeated import repeated_shapes
from ...shapes.structure import Anatomy, find_structure
from ..outline import RefusedError, SizeRule, last_line
from .nets import Spec, build, maps_of
from .trim import pass_on

# Strides of mmpretrain's nets, and patches of 7 or 14 pixels.
_MULTIPLES = (1, 16, 32, 7, 14, 64)
_USUAL_SIZE = (224, 224)
_MOST_LEVELS = 8
_Result = TypeVar('_Result')


@dataclass(frozen=True)
class Survey:
    """What a net has to offer as a backbone.

    Attributes:
        levels: All of its levels of whole strides, shallow to deep.
        stages: Names of modules and bare parameters by stage, see
            :func:`~mmdet_backbones.shapes.structure.find_structure`.
        sizes: Which images it takes.
        count: Number of its levels, those of no whole stride included.
        unused: Names of parts that none of its levels depends on.
    """

    levels: tuple[Level, ...]
    stages: tuple[tuple[str, ...], ...]
    sizes: SizeRule
    count: int
    unused: tuple[str, ...]


@lru_cache(maxsize=64)
def survey(spec: Spec) -> Survey:
    """Find levels, stages and image sizes of a net.

    Raises:
        TypeError: If its class does not take an argument.
        ValueError: If its class does not take the arguments, or it cannot be a
            backbone.
    """
    with torch.device('meta'):
        net, count = _with_all_levels(spec)
        net = trainable(net)
        sizes, anatomy = _fit(spec, net, count)
        unused = anatomy.unused
        if unused:
            # Parts that no level at all depends on would blur the stages.
            pass_on(net, unused)
            stages = examine(spec, net, range(count), sizes).stages
        else:
            stages = anatomy.stages
    if not anatomy.levels:
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: none of its maps has the size of the '
            'image over a whole stride'
        )
    return Survey(anatomy.levels, stages, sizes, count, unused)


def picks_of(spec: Spec, indices: Sequence[int]) -> tuple[int, ...]:
    """Tell which outputs of a net the levels of these numbers are."""
    # A class that cannot be asked for levels returns all of them.
    return tuple(indices if spec.index_argument is None else range(len(indices)))


def trainable(net: nn.Module) -> nn.Module:
    """Let every parameter take part in the search for what depends on what."""
    # Not by the net's own eval(), which returns None in mmpretrain.
    return nn.Module.train(net, False).requires_grad_(True)


def examine(
    spec: Spec, net: nn.Module, indices: Sequence[int], sizes: SizeRule
) -> Anatomy:
    """Dissect a net on the meta device.

    Args:
        spec: What ``net`` was built from.
        net: On the meta device.
        indices: Level numbers of the outputs to examine.
        sizes: Which images it takes.

    Returns:
        The anatomy; of the levels those of whole strides.
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
        size=sizes.fixed or _padded(PROBE_SIZE, sizes.multiple),
        skip_unaligned=True,
    )


def _with_all_levels(spec: Spec) -> tuple[nn.Module, int]:
    """Build a net with every level it has, and count them."""
    if spec.index_argument is None:
        # All outputs are always there.
        net = build(spec, None)
        return net, len(_probe_somehow(spec, net))
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
            if len(_probe_somehow(spec, net)) == count:
                return net, count
    return None


def _probe_somehow(spec: Spec, net: nn.Module) -> list[Tensor]:
    outputs = _attempt(partial(_probe, spec, net, PROBE_SIZE))
    if outputs is not None:
        return outputs
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
            f'and of {_own_size(spec)}: {last_line(error)}'
        ) from error


def _own_size(spec: Spec) -> tuple[int, int]:
    """Return the one size of a net that takes no other."""
    size = spec.arguments.get('img_size', _USUAL_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _probe(spec: Spec, net: nn.Module, size: tuple[int, int]) -> list[Tensor]:
    with repeated_shapes(), torch.no_grad(), torch.device('meta'):
        return maps_of(spec, net(torch.zeros(2, spec.in_channels, *size)))


def _padded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def _fit(spec: Spec, net: nn.Module, count: int) -> tuple[SizeRule, Anatomy]:
    """Find the padding under which most maps have the size ceil(image / stride)."""
    by_size: dict[tuple[int, int], Anatomy | None] = {}
    best: tuple[SizeRule, Anatomy] | None = None
    for multiple in _MULTIPLES:
        rule, size = SizeRule(multiple), _padded(PROBE_SIZE, multiple)
        if size not in by_size:
            by_size[size] = _attempt(partial(examine, spec, net, range(count), rule))
        anatomy = by_size[size]
        # Odd if nothing is padded, and of several multiples along both sides.
        odd = (size[0] + multiple, size[1] + 2 * multiple + (multiple == 1))
        outputs = _attempt(partial(_probe, spec, net, odd))
        if anatomy is None or outputs is None:
            continue
        aligned = tuple(
            level
            for level in anatomy.levels
            if outputs[level.index].shape[2:]
            == tuple(-(-side // level.stride) for side in odd)
        )
        if best is None or len(aligned) > len(best[1].levels):
            best = rule, replace(anatomy, levels=aligned)
        if len(aligned) == count:
            break
    return best if best is not None else _fit_one_size(spec, net, count)


def _fit_one_size(spec: Spec, net: nn.Module, count: int) -> tuple[SizeRule, Anatomy]:
    rule = SizeRule(fixed=_own_size(spec))
    with _refusing(spec):
        return rule, examine(spec, net, range(count), rule)


def _attempt(run: Callable[[], _Result]) -> _Result | None:
    try:
        return run()
    except RefusedError:
        raise
    except Exception:  # whatever a net raises for a size that it does not take
        return None
