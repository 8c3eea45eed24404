"""What a net is made of, found by one pass over it on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..levels import PROBE_SIZE, Level, measure
from .repeated import repeated_shapes


@dataclass(frozen=True)
class Anatomy:
    """Outputs of a net and the parts that each of them needs.

    Attributes:
        levels: One per output.
        stages: Names of modules and bare parameters by stage. A stage is what a
            level needs and no level before it; 0 is the stem, see :func:`dissect`.
        unused: Names of parts that no output depends on.
    """

    levels: tuple[Level, ...]
    stages: tuple[tuple[str, ...], ...]
    unused: tuple[str, ...]


def dissect(
    net: nn.Module,
    forward: Callable[[Tensor], Sequence[Tensor]],
    *,
    indices: Sequence[int] | None = None,
    in_channels: int = 3,
    size: tuple[int, int] = PROBE_SIZE,
    skip_unaligned: bool = False,
) -> Anatomy:
    """Find the levels of a net and which parameters each of them depends on.

    The stem, stage 0, is what the shallowest level needs before its largest part
    runs: ``conv1`` and ``bn1`` of a ResNet, the patch embedding of a Swin.

    Args:
        net: On the meta device, so that no weights are held and nothing is computed.
        forward: Maps (N, in_channels, H, W) to NCHW tensors, shallow to deep, by
            means of ``net``.
        indices: Level numbers of the outputs; 0, 1, ... if left out.
        in_channels: Channels of the image.
        size: Height and width of the probe.
        skip_unaligned: Leave levels out whose maps are not of the size
            (ceil(H / stride), ceil(W / stride)), instead of raising.

    Returns:
        The anatomy; names are those of ``net``.

    Raises:
        ValueError: If an output is not a map of that size.
    """
    calls: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, module in net.named_modules()
    ]
    repeated = repeated_shapes()
    try:
        with repeated, torch.device('meta'):
            outputs = forward(torch.zeros(2, in_channels, *size))
    finally:
        for handle in handles:
            handle.remove()
    numbers = indices if indices is not None else range(len(outputs))
    levels = []
    for number, output in zip(numbers, outputs, strict=True):
        level = measure(number, output, size)
        if level is not None:
            levels.append(level)
        elif not skip_unaligned:
            raise ValueError(
                f'output {number} must be a map of shape (N, C, H, W) with the same '
                f'stride along both sides, got {tuple(output.shape)} for an image of '
                f'{size}'
            )
    with repeated:
        needed, unused = _needed_by(net, outputs)
    parts = [largest_parts(net, names) for names in needed]
    return Anatomy(
        tuple(levels),
        tuple(map(tuple, _split_stem(net, parts, calls))),
        tuple(largest_parts(net, unused)),
    )


def _needed_by(
    net: nn.Module, outputs: Sequence[Tensor]
) -> tuple[list[set[str]], set[str]]:
    """Names of the parameters that each output is the first to depend on; the rest."""
    left = {n: p for n, p in net.named_parameters() if p.requires_grad}
    needed: list[set[str]] = []
    for output in outputs:
        if not left or not output.requires_grad:
            needed.append(set())
            continue
        grads = torch.autograd.grad(
            output.sum(), list(left.values()), retain_graph=True, allow_unused=True
        )
        names = {n for n, g in zip(left, grads, strict=True) if g is not None}
        needed.append(names)
        left = {n: p for n, p in left.items() if n not in names}
    return needed, set(left)


def largest_parts(root: nn.Module, names: Collection[str]) -> list[str]:
    """Name the largest modules whose parameters are all in ``names``.

    Args:
        root: Holds the parameters.
        names: Some of its parameters.

    Returns:
        Modules in order of definition, then parameters in no such module.
    """
    wanted = set(names)
    parts: list[str] = []
    for prefix, module in root.named_modules():
        held = {f'{prefix}.{name}' for name, _ in module.named_parameters()}
        inside = any(prefix.startswith(f'{part}.') for part in parts)
        if prefix and held and held <= wanted and not inside:
            parts.append(prefix)
    covered = tuple(f'{part}.' for part in parts)
    return parts + sorted(name for name in wanted if not name.startswith(covered))


def part_of(root: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """Return the module or parameter of that name."""
    parent, _, leaf = name.rpartition('.')
    return getattr(root.get_submodule(parent), leaf)


def blocks_of(part: nn.Module) -> list[nn.Module]:
    """Name the repeated blocks of a stage, the units of activation checkpointing.

    Args:
        part: A stage, or a block itself.

    Returns:
        The members of the container that holds most of the parameters, or ``part``
        if there is no such container. Layers without parameters are left out.
    """
    if isinstance(part, (nn.Sequential, nn.ModuleList)):
        # Not by iteration: HRNet's lists have None where a branch stays as it is.
        members = [child for child in part.children() if _count(child)]
        return [block for member in members for block in _called(member)]
    for child in part.children():
        container = isinstance(child, (nn.Sequential, nn.ModuleList))
        if container and 2 * _count(child) > _count(part):
            return blocks_of(child)
    return [part]


def _called(member: nn.Module) -> list[nn.Module]:
    # A list is never called, its members are.
    return blocks_of(member) if isinstance(member, nn.ModuleList) else [member]


def _count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _split_stem(
    net: nn.Module, parts: list[list[str]], calls: list[str]
) -> list[list[str]]:
    if not parts or len(parts[0]) < 2:
        return parts
    first, rest = parts[0], parts[1:]
    called = {name: number for number, name in reversed(list(enumerate(calls)))}

    def size(name: str) -> int:
        part = part_of(net, name)
        # The position embedding of a small net outweighs its first block.
        return 0 if isinstance(part, nn.Parameter) else _count(part)

    def order(name: str) -> int:
        # Bare parameters, such as a position embedding, and containers that are
        # never called belong where their first layer runs, or to the start.
        inner = [n for c, n in called.items() if c == name or c.startswith(f'{name}.')]
        return min(inner, default=-1)

    body = max(first, key=size)
    stem = [name for name in first if order(name) < order(body)]
    if not stem:
        return parts
    return [stem, [name for name in first if name not in stem], *rest]
