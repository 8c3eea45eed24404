"""What a net is made of: levels, stages, blocks and parameters.

Found by one pass over it on the meta device, without weights or statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..levels import PROBE_SIZE, Level, describe_levels, measure
from .build import forward_weightless
from .repeated import repeated_shapes


@dataclass(frozen=True)
class Structure:
    """Outputs of a net and the parts that each of them needs.

    Attributes:
        levels: One per output.
        stages: Names of modules and bare parameters by stage. A stage is what a
            level needs and no level before it; 0 is the stem, see
            :func:`find_structure`.
        unused: Names of parts that no output depends on.
    """

    levels: tuple[Level, ...]
    stages: tuple[tuple[str, ...], ...]
    unused: tuple[str, ...]


def find_structure(
    net: nn.Module,
    forward: Callable[[Tensor], Sequence[Tensor]],
    *,
    indices: Sequence[int] | None = None,
    in_channels: int = 3,
    size: tuple[int, int] = PROBE_SIZE,
    skip_unaligned: bool = False,
) -> Structure:
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
        The structure; names are those of ``net``.

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
        # A net may be built where gradients are off.
        with repeated, torch.device('meta'), torch.enable_grad():
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
    with repeated, torch.enable_grad():
        needed, unused = _needed_by(net, outputs)
    parts = [largest_parts(net, names) for names in needed]
    return Structure(
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
    """Name the largest modules whose parameters, but fixed ones, are all in ``names``.

    Args:
        root: Holds the parameters.
        names: Some of its parameters.

    Returns:
        Modules in order of definition, then parameters in no such module.
    """
    wanted = set(names)
    parts: list[str] = []
    for prefix, module in root.named_modules():
        held = {
            f'{prefix}.{name}'
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        inside = any(prefix.startswith(f'{part}.') for part in parts)
        if prefix and held and held <= wanted and not inside:
            parts.append(prefix)
    covered = tuple(f'{part}.' for part in parts)
    return parts + sorted(name for name in wanted if not name.startswith(covered))


def part_of(root: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """Return the module or parameter of that name."""
    parent, _, leaf = name.rpartition('.')
    return getattr(root.get_submodule(parent), leaf)


def has_part(root: nn.Module, name: str) -> bool:
    """Tell whether there is a module or parameter of that name."""
    try:
        return part_of(root, name) is not None
    except AttributeError:
        return False


def replace_part(root: nn.Module, name: str, part: nn.Module) -> None:
    """Put another module in the place of one."""
    parent, _, leaf = name.rpartition('.')
    setattr(root.get_submodule(parent), leaf, part)


def kept_stages(
    root: nn.Module, stages: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], ...]:
    """Leave out what a net has not, of the stages of another with more levels."""
    return tuple(
        tuple(name for name in stage if has_part(root, name)) for stage in stages
    )


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
        members = [child for child in part.children() if count_parameters(child)]
        return [block for member in members for block in _called(member)]
    for child in part.children():
        container = isinstance(child, (nn.Sequential, nn.ModuleList))
        if container and 2 * count_parameters(child) > count_parameters(part):
            return blocks_of(child)
    return [part]


def _called(member: nn.Module) -> list[nn.Module]:
    # A list is never called, its members are.
    return blocks_of(member) if isinstance(member, nn.ModuleList) else [member]


def count_parameters(part: nn.Module | nn.Parameter) -> int:
    """Count the numbers that could be trained."""
    if isinstance(part, nn.Parameter):
        return part.numel()
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
        return 0 if isinstance(part, nn.Parameter) else count_parameters(part)

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


def probe_levels(
    backbone: nn.Module, size: tuple[int, int] = PROBE_SIZE, in_channels: int = 3
) -> list[Level]:
    """Report channels and stride of every level a backbone returns.

    Runs one forward pass on the meta device. The default size is not square, so
    swapped height and width cannot hide.

    Args:
        backbone: Maps (N, C, H, W) to a sequence of NCHW tensors; on the meta device.
        size: Height and width of the probe.
        in_channels: Channels of the probe.

    Returns:
        One level per output, shallow to deep. Indices are those of the backbone's
        ``out_indices``, or 0, 1, ... if it has none.

    Raises:
        ValueError: If an output is not NCHW, its size is not that of the image over a
            whole stride, or strides decrease.
    """
    with repeated_shapes():
        outputs = forward_weightless(backbone, size, in_channels)
    return levels_of_outputs(backbone, outputs, size)


def levels_of_outputs(
    net: nn.Module, outputs: Sequence[Tensor], size: tuple[int, int]
) -> list[Level]:
    """Read the levels off outputs for an image of that size.

    Raises:
        ValueError: As :func:`probe_levels`.
    """
    declared = getattr(net, 'levels', ())
    indices = getattr(net, 'out_indices', None)
    if indices is None or len(indices) != len(outputs):
        indices = range(len(outputs))
    levels = []
    for number, (index, output) in enumerate(zip(indices, outputs, strict=True)):
        level = measure(int(index), output, size)
        # Maps of a small image fit several strides, so the declared one comes first.
        if len(declared) == len(outputs) and declared[number].fits(output, size):
            level = declared[number]
        levels.append(level)
    found = [level for level in levels if level is not None]
    strides = [level.stride for level in found]
    if len(found) < len(levels) or strides != sorted(strides):
        shapes = ', '.join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(
            'every output must be a map of shape (N, C, H, W) with the size of the '
            f'image over a whole stride, strides ascending; got {shapes} for an image '
            f'of {size}, which are the levels {describe_levels(found) or "none"}'
        )
    return found
