"""Which levels, stages and image sizes a net of transformers has.

Found by building the net on the meta device and running it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...levels import PROBE_SIZE
from ...shapes.repeated import repeated_shapes
from ...shapes.structure import (
    Structure,
    find_structure,
    has_part,
    largest_parts,
    part_of,
)
from ..structure import (
    RefusedError,
    Size,
    SizeRule,
    WholeStructure,
    fit_padding,
    one_line,
)
from ..trim import WAYS, cut_lists, in_list, parent_of, replace_by
from .nets import NetSpec, build, configuration, maps_of

# Strides of the nets, and windows of patches; patches of a net are tried first.
_MULTIPLES = (4, 8, 14, 16, 32, 64)


@dataclass(frozen=True)
class Plan:
    """How a net loses what none of its outputs needs.

    Attributes:
        replaced: Parts, and what stands in their place.
        cut: Parts at the end of lists, which are cut off.
        idle: Parts that its class needs all the same.
    """

    replaced: tuple[tuple[str, str], ...] = ()
    cut: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def apply(self, net: nn.Module) -> None:
        """Take the parts out of a net that was built from the same config."""
        for name, way in self.replaced:
            if not in_list(net, name):
                replace_by(net, name, way)
        cut_lists(net, self.cut)
        for name, way in self.replaced:
            if in_list(net, name):
                replace_by(net, name, way)


@dataclass(frozen=True)
class PlannedStructure(WholeStructure):
    """Structure of a net with all of its levels, and what that net does not need."""

    plan: Plan


@lru_cache(maxsize=64)
def structure_of(spec: NetSpec) -> PlannedStructure:
    """Find levels, stages and image sizes of a net.

    Raises:
        ValueError: If its class does not take the config, or it is no backbone.
    """
    with torch.device('meta'):
        indices, net, size = _with_all_levels(spec)
        # Parts that no level at all depends on would blur the stages.
        plan = _plan(spec, net, size)
        sizes, found = _fit(spec, net, indices)
    if not found.levels:
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: none of its maps has the size of the '
            'image over a whole stride'
        )
    return PlannedStructure(
        found.levels, found.stages, plan.idle, sizes, len(indices), plan
    )


@lru_cache(maxsize=64)
def plan_of(spec: NetSpec, indices: tuple[int, ...]) -> Plan:
    """Find out what a net with these levels does not need, and how it can go."""
    found = structure_of(spec)
    if len(indices) == found.count:
        return found.plan
    with torch.device('meta'):
        net = build(spec, indices).eval()
        return _plan(spec, net, found.sizes.padded(PROBE_SIZE))


def _with_all_levels(spec: NetSpec) -> tuple[tuple[int, ...], nn.Module, Size]:
    """Build a net with every output that depends on its weights.

    Returns:
        The numbers of the outputs, the net, and a size that it takes.
    """
    try:
        indices = tuple(range(spec.count))
        net = build(spec, indices).eval()
    except RefusedError:
        raise
    except ValueError:
        # MaskFormer's Swin refuses to return its stem.
        indices = tuple(range(1, spec.count))
        net = build(spec, indices).eval()
    reasons = []
    for size in (SizeRule(_multiples(spec)[-1]).padded(PROBE_SIZE), _own_size(spec)):
        try:
            with torch.enable_grad():
                outputs = _run(spec, net, size)
        except RefusedError:
            raise
        except Exception as error:  # whatever a net raises for a size
            reasons.append(f'{size}: {one_line(error)}')
            continue
        pairs = zip(indices, outputs, strict=True)
        # The stem of DINOv3's ConvNeXt is the image itself.
        ours = tuple(index for index, output in pairs if output.requires_grad)
        return ours, net if ours == indices else build(spec, ours).eval(), size
    raise RefusedError(
        f'{spec.owner} cannot be a backbone: it fails on images of '
        f'{" and of ".join(reasons)}'
    )


def _run(spec: NetSpec, net: nn.Module, size: Size) -> list[Tensor]:
    with _shapes(spec), torch.device('meta'):
        return maps_of(net, torch.zeros(2, spec.in_channels, *size))


@lru_cache(maxsize=1)
def _shapes(spec: NetSpec) -> repeated_shapes:
    # The runs of one net have most operations in common.
    return repeated_shapes()


def _run_frozen(spec: NetSpec, net: nn.Module, size: Size) -> list[Tensor]:
    with torch.no_grad():
        return _run(spec, net, size)


def _fit(
    spec: NetSpec, net: nn.Module, indices: Sequence[int]
) -> tuple[SizeRule, Structure]:
    """Find which images a net takes, and its structure for them."""
    padding = fit_padding(partial(_run_frozen, spec, net), _multiples(spec))
    if padding is None:
        sizes = SizeRule(fixed=_own_size(spec))
        return sizes, _examine(spec, net, indices, sizes)
    sizes, levels = padding
    found = _examine(spec, net, indices, sizes)
    levels = tuple(replace(level, index=indices[level.index]) for level in levels)
    return sizes, replace(found, levels=levels)


def _multiples(spec: NetSpec) -> tuple[int, ...]:
    patch = _pair(getattr(configuration(spec, None), 'patch_size', None))
    first = (patch[0],) if patch is not None else ()
    return tuple(dict.fromkeys((1, *first, *_MULTIPLES)))


def _own_size(spec: NetSpec) -> Size:
    """Return the one size of a net that takes no other."""
    return _pair(getattr(configuration(spec, None), 'image_size', None)) or (224, 224)


def _pair(value: Any) -> Size | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None


def _examine(
    spec: NetSpec, net: nn.Module, indices: Sequence[int], sizes: SizeRule
) -> Structure:
    return find_structure(
        net,
        lambda x: maps_of(net, x),
        indices=indices,
        in_channels=spec.in_channels,
        size=sizes.padded(PROBE_SIZE),
        skip_unaligned=True,
    )


def _unused(spec: NetSpec, net: nn.Module, size: Size) -> list[str]:
    """Name the largest parts that no output depends on."""
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        total = torch.stack([output.sum() for output in _run(spec, net, size)]).sum()
        grads = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    idle = [n for n, grad in zip(trained, grads, strict=True) if grad is None]
    return largest_parts(net, idle)


def _plan(spec: NetSpec, net: nn.Module, size: Size) -> Plan:
    """Try ways to take what no output needs out of a net, which is changed."""
    left = _unused(spec, net, size)
    run = partial(_run_frozen, spec, net, size)
    expected = [output.shape for output in run()] if left else []

    def works() -> bool:
        try:
            return [output.shape for output in run()] == expected
        except Exception:  # whatever a net raises that needs the part after all
            return False

    # The normalisation at the end fits the last stage alone, and has to go before it.
    replaced = _replace(net, [n for n in left if not in_list(net, n)], works)
    left = [name for name in left if name not in dict(replaced)]
    lists = {parent_of(net, n) for n in left if in_list(net, n)}
    before = [(container, dict(container._modules)) for container in lists]
    cut = tuple(n for n in left if in_list(net, n))
    cut_lists(net, cut)
    if not works():
        for container, modules in before:
            container._modules.clear()
            container._modules.update(modules)
        cut = ()
    left = [name for name in left if has_part(net, name)]
    replaced += _replace(net, left, works)
    idle = tuple(name for name in left if name not in dict(replaced))
    return Plan(tuple(replaced), cut, idle)


def _replace(
    net: nn.Module, names: Sequence[str], works: Callable[[], bool]
) -> list[tuple[str, str]]:
    """Replace the parts that can be, and tell by what."""
    replaced = []
    for name in names:
        owner, leaf, part = (
            parent_of(net, name),
            name.rpartition('.')[2],
            part_of(net, name),
        )
        members = dict(part._modules) if isinstance(part, nn.Module) else {}
        for way in WAYS:
            replace_by(net, name, way)
            if works():
                replaced.append((name, way))
                break
            # As it was; a parameter had become a buffer.
            owner._buffers.pop(leaf, None)
            owner._non_persistent_buffers_set.discard(leaf)
            setattr(owner, leaf, part)
            if isinstance(part, nn.Module):
                part._modules.update(members)
    return replaced
