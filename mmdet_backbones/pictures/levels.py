"""What each level holds for one image, and which pixels it looks at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.contract import Backbone, differentiable
from ..levels import measure

_HEADS = ('rpn_head', 'bbox_head', 'query_head', 'mask_head')
# A channel that varies by less than this share of the level's largest value is
# constant: rounding alone gives about 1e-7.
_CONSTANT = 1e-6
_SHARE = 0.9


@dataclass(frozen=True)
class LevelView:
    """One level of a backbone or a neck, for one image.

    Attributes:
        place: ``'backbone'`` or ``'neck'``.
        number: From 0, in the order in which they are returned.
        channels: Of the map.
        stride: As it is declared, else as it was measured; None if neither is known.
        declared_by: Who says so; empty if the stride was measured.
        energy: Mean over the channels of the absolute values, of shape (h, w).
        field: Effective receptive field (arXiv 1701.04128, section 2): size of the
            gradient of the level's centre with regard to each pixel, of shape (H, W).
        centre: Of the field, row and column of the image in pixels.
        reach: Side of the square around the centre that holds 90 % of the field, in
            pixels; 0 if there is no gradient.
        idle: Number of channels that are the same everywhere in the image.
        faults: What is wrong, in words: a dead level, a wrong stride.
    """

    place: str
    number: int
    channels: int
    stride: int | None
    declared_by: str
    energy: np.ndarray
    field: np.ndarray
    centre: tuple[int, int]
    reach: int = 0
    idle: int = 0
    faults: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.energy.shape[0], self.energy.shape[1]


@dataclass(frozen=True)
class _Seen:
    """A level as a hook saw it."""

    view: LevelView
    centre: Tensor  # (C,), with its graph


def view_levels(
    detector: Any, inputs: Tensor, content: tuple[int, int], probes: int = 2
) -> list[LevelView]:
    """Run an image through backbone and neck and look at every level.

    The field is that of all channels together: their gradients are added with random
    signs, which cannot cancel as a mean could, and averaged over the probes.

    Args:
        detector: In eval mode.
        inputs: A preprocessed image, of shape (1, C, H, W).
        content: Height and width of the image without its padding.
        probes: Backward passes for each level.

    Returns:
        The levels of the backbone, then those of the neck if there is one.
    """
    inputs = inputs.detach().requires_grad_(True)
    seen: dict[str, list[_Seen]] = {}
    with (
        torch.enable_grad(),
        differentiable(detector),
        contextlib.ExitStack() as hooks,
    ):
        for place in ('backbone', 'neck'):
            part = getattr(detector, place, None)
            if isinstance(part, nn.Module):
                handle = part.register_forward_hook(
                    _recorder(detector, place, inputs, content, seen)
                )
                hooks.callback(handle.remove)
        detector.extract_feat(inputs)
    generator = torch.Generator().manual_seed(0)
    return [
        _with_field(level, inputs, probes, generator)
        for levels in seen.values()
        for level in levels
    ]


def _recorder(
    detector: Any,
    place: str,
    inputs: Tensor,
    content: tuple[int, int],
    seen: dict[str, list[_Seen]],
) -> Any:
    def record(module: nn.Module, arguments: Any, output: Any) -> None:
        # At once and on copies: what follows may write into these maps.
        if place not in seen:
            maps = list(_maps(output))
            claims = declared_strides(detector, place, len(maps))
            seen[place] = [
                _look(place, number, tensor, inputs, content,
                      [(who, strides[number]) for who, strides in claims])
                for number, tensor in enumerate(maps)
            ]  # fmt: skip

    return record


def _maps(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.dim() == 4:
            yield output
    elif isinstance(output, dict):
        yield from _maps(list(output.values()))
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _maps(part)


def declared_strides(
    detector: Any, place: str, count: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Collect what is said about the strides of a backbone's or neck's maps.

    Args:
        detector: Asked: a backbone of this package for its own levels, the heads for
            the levels that they read, which are the last before them.
        place: ``'backbone'`` or ``'neck'``.
        count: Number of maps.

    Returns:
        Who says it, and the stride of each map.
    """
    claims = []
    if place == 'backbone' and isinstance(detector.backbone, Backbone):
        claims.append(('the backbone', detector.backbone.out_strides))
    has_neck = isinstance(getattr(detector, 'neck', None), nn.Module)
    if place == 'neck' or not has_neck:
        for name in _HEADS:
            generator = getattr(getattr(detector, name, None), 'prior_generator', None)
            strides = getattr(generator, 'strides', None) or ()
            sides = tuple(s[0] if isinstance(s, Sequence) else s for s in strides)
            claims.append((name, sides))
    return [(who, strides) for who, strides in claims if len(strides) == count]


def _look(
    place: str,
    number: int,
    tensor: Tensor,
    inputs: Tensor,
    content: tuple[int, int],
    claims: list[tuple[str, int]],
) -> _Seen:
    size = (inputs.shape[2], inputs.shape[3])
    rows, columns = tensor.shape[2:]
    row = min(rows - 1, content[0] * rows // (2 * size[0]))
    column = min(columns - 1, content[1] * columns // (2 * size[1]))
    values = tensor[0].detach().float()
    level = measure(number, tensor, size)
    who, stride = claims[0] if claims else ('', level.stride if level else None)
    view = LevelView(
        place=place,
        number=number,
        channels=tensor.shape[1],
        stride=stride,
        declared_by=who,
        energy=values.abs().mean(0).cpu().numpy(),
        field=np.zeros(size, np.float32),
        centre=(
            min(size[0] - 1, (2 * row + 1) * size[0] // (2 * rows)),
            min(size[1] - 1, (2 * column + 1) * size[1] // (2 * columns)),
        ),
        idle=int(_constant_channels(values).sum()),
        faults=(*_dead(values), *_misplaced(tensor, size, claims)),
    )
    return _Seen(view, tensor[0, :, row, column].clone())


def _constant_channels(values: Tensor) -> Tensor:
    """Tell for each channel of (C, h, w) whether it is the same everywhere."""
    flat = values.flatten(1)
    if flat.shape[1] < 2:
        return torch.zeros(len(flat), dtype=torch.bool)
    spread = flat.amax(1) - flat.amin(1)
    return (spread <= _CONSTANT * flat.abs().amax()).cpu()


def _dead(values: Tensor) -> list[str]:
    finite = int(torch.isfinite(values).sum())
    if not finite:
        return ['DEAD: no value is finite']
    if finite < values.numel():
        return [f'{values.numel() - finite} of {values.numel()} values are not finite']
    if not values.any():
        return ['DEAD: every value is zero']
    if _constant_channels(values).all():
        return ['DEAD: the same everywhere in the image']
    return []


def _misplaced(
    tensor: Tensor, size: tuple[int, int], claims: list[tuple[str, int]]
) -> list[str]:
    level = measure(0, tensor, size)
    there = f'{tensor.shape[2]} x {tensor.shape[3]}'
    if level is None:
        return [f'WRONG STRIDE: its {there} are the image over no whole number']
    faults = []
    for who, stride in claims:
        wanted = tuple(-(-side // stride) for side in size)
        if tuple(tensor.shape[2:]) != wanted:
            faults.append(
                f'WRONG STRIDE: {level.stride} here, {stride} for {who}, '
                f'which takes it for {wanted[0]} x {wanted[1]}'
            )
    return faults


def _with_field(
    seen: _Seen, inputs: Tensor, probes: int, generator: torch.Generator
) -> LevelView:
    view, centre = seen.view, seen.centre
    if not torch.isfinite(centre).all():
        return view
    total = torch.zeros_like(inputs[0, 0])
    for _ in range(probes if centre.requires_grad else 0):
        signs = torch.randint(0, 2, centre.shape, generator=generator) * 2.0 - 1
        projected = (centre * signs.to(centre)).sum()
        (gradient,) = torch.autograd.grad(
            projected, inputs, retain_graph=True, allow_unused=True
        )
        if gradient is not None:
            total += gradient.abs().sum(1)[0]
    field = np.nan_to_num(total.cpu().numpy() / probes)
    reach = field_reach(field, view.centre)
    faults = view.faults
    if not reach and not any(fault.startswith('DEAD') for fault in faults):
        faults = (*faults, 'DEAD in its middle: no pixel of the image changes it')
    return replace(view, field=field, reach=reach, faults=faults)


def field_reach(field: np.ndarray, centre: tuple[int, int]) -> int:
    """Measure how far a field reaches.

    Args:
        field: Not negative, of shape (H, W).
        centre: Row and column of its middle.

    Returns:
        Side in pixels of the smallest square around the centre that holds 90 % of the
        field; 0 for a field of zeros.
    """
    if not field.any():
        return 0
    rows = np.abs(np.arange(field.shape[0]) - centre[0])[:, None]
    columns = np.abs(np.arange(field.shape[1]) - centre[1])[None, :]
    distance = np.maximum(rows, columns)
    within = np.cumsum(np.bincount(distance.ravel(), field.ravel().astype(float)))
    return 2 * int(np.searchsorted(within, _SHARE * within[-1])) + 1
