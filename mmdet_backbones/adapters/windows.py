"""Attention within windows for plain ViTs, while a few blocks see the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.checkpointing import Remembered
from ..errors import ArgumentError

Size = tuple[int, int]
# As in ViTDet, whatever the depth.
USUAL_GLOBAL_BLOCKS = 4
# Arguments of attention layers that hold a position for every patch, by the names that
# the libraries use: timm's, transformers'.
_POSITIONS = ('rope', 'position_embeddings')


class ViTParts(NamedTuple):
    """What windows are put into.

    Attributes:
        patches: The convolution that makes the patches.
        attentions: The layer of attention of each block.
    """

    patches: nn.Module
    attentions: Sequence[nn.Module]


class Windows(Remembered):
    """The windows of a net, and the patches of the image that it looks at.

    Attributes:
        size: Rows and columns of patches of a window.
        value: Rows and columns of patches of the image.
    """

    def __init__(self, size: Size) -> None:
        super().__init__((0, 0))
        self.size = size

    def __call__(self, patches: nn.Module, inputs: Any, output: Tensor) -> None:
        """Note the size of an image, as a hook of the layer that makes its patches."""
        self.value = (output.shape[-2], output.shape[-1])


def attend_in_windows(
    patches: nn.Module,
    attentions: Sequence[nn.Module],
    size: int | Sequence[int],
    global_blocks: int | Sequence[int] | None,
    owner: str,
) -> None:
    """Have most blocks of a plain ViT see one window of the image at a time.

    As in ViTDet, `arXiv 2203.16527 <https://arxiv.org/abs/2203.16527>`_, sec. 3, with
    three differences that keep what pretrained weights were trained for:

    - Windows at the right and the bottom are as small as what is left of the image;
      ViTDet fills them with zeros, which take part in its attention.
    - Patches keep the position that they have in the image, by an absolute table as
      by rotation.
    - Class and register tokens stay. They stand in every window, where patches see
      them and they see the patches; what they take in is averaged over the windows, by
      the number of patches.

    Where a window holds the whole image nothing changes. Modules and parameters keep
    their names and shapes.

    Args:
        patches: The convolution whose output has a row and a column for each patch.
        attentions: The layer of attention of each block, changed in place. It maps
            tokens (N, prefix + rows * columns, C), patches last and row by row, to the
            same shape, alone or first in a tuple. Positions come as keyword arguments
            ``rope`` or ``position_embeddings``: tensors (rows * columns, D), or
            (heads, rows * columns, D), or tuples of these.
        size: Rows and columns of patches of a window, or one number for both.
        global_blocks: Which blocks see the whole image, as for
            :func:`windowed_blocks`.
        owner: Name of the backbone, for messages.

    Raises:
        ValueError: If a size is no size, or there are no such blocks.
    """
    windows = Windows(window_size(size, owner))
    numbers = windowed_blocks(len(attentions), global_blocks, owner)
    patches.register_forward_hook(windows)
    for attention in (attentions[number] for number in numbers):
        # On the instance, as for checkpointing: it is copied and pickled with the net.
        attention.windows = windows  # type: ignore[assignment]
        attention.forward = partial(_in_windows, attention)


def use_windows(
    parts: ViTParts | None,
    size: int | Sequence[int] | None,
    global_blocks: int | Sequence[int] | None,
    owner: str,
    windowed: str,
) -> None:
    """Confine the attention of a plain ViT to windows, or say why that cannot be.

    Args:
        parts: Of the net; None if it is no plain ViT.
        size: As for :func:`attend_in_windows`.
        global_blocks: As there.
        owner: Name of the backbone, for the message.
        windowed: The nets of its library that can, for the message.

    Raises:
        ValueError: If it is another net, or the arguments are none for it.
    """
    if size is None:
        raise ArgumentError(
            f'{owner}: global_blocks={global_blocks!r} has no effect without '
            'window_size: write window_size=14 beside it, or leave it out',
            dict(window_size=14),
        )
    if parts is None:
        raise ArgumentError(
            f'{owner} is no plain ViT of a kind whose attention can be confined to '
            f'windows; {windowed} are: leave out window_size and global_blocks',
            dict(window_size=None, global_blocks=None),
        )
    attend_in_windows(parts.patches, parts.attentions, size, global_blocks, owner)


def windowed_blocks(
    depth: int, global_blocks: int | Sequence[int] | None, owner: str
) -> list[int]:
    """Choose the blocks whose attention is confined to windows.

    Args:
        depth: Number of blocks.
        global_blocks: Numbers of the blocks that see the whole image, or how many of
            them there are: the last one of each of as many equal parts of the net, such
            as 2, 5, 8 and 11 for 4 of 12. None is 4, or as many as a shallow net can
            have.
        owner: Name of the backbone, for the message.

    Raises:
        ValueError: If there are no such blocks, or none is left for windows.
    """
    if global_blocks is None:
        global_blocks = min(USUAL_GLOBAL_BLOCKS, depth // 2)
    if type(global_blocks) is int and 0 <= global_blocks < depth:
        chosen = [depth * n // global_blocks - 1 for n in range(1, global_blocks + 1)]
        return [number for number in range(depth) if number not in chosen]
    given = global_blocks if isinstance(global_blocks, Sequence) else [-1]
    valid = all(type(n) is int and 0 <= n < depth for n in given)
    if not valid or not len(set(given)) == len(given) < depth:
        usual = windowed_blocks(depth, None, owner)
        others = [number for number in range(depth) if number not in usual]
        raise ArgumentError(
            f'{owner}: global_blocks must be how many of its {depth} blocks see the '
            f'whole image, 0 to {depth - 1}, or a list of their numbers, 0 to '
            f'{depth - 1}, each once and not of all blocks; got {global_blocks!r}: '
            f'write global_blocks={others}',
            dict(global_blocks=others),
        )
    return [number for number in range(depth) if number not in given]


def window_size(size: int | Sequence[int], owner: str) -> Size:
    """Read rows and columns of a window.

    Args:
        size: Both, or one number for both.
        owner: Name of the backbone, for the message.

    Raises:
        ValueError: If they are not positive integers.
    """
    sides = (size, size) if isinstance(size, int) else size
    valid = isinstance(sides, Sequence) and len(sides) == 2
    if not valid or not all(type(side) is int and side > 0 for side in sides):
        raise ArgumentError(
            f'{owner}: window_size must be the number of patches along a side of a '
            f'window, or rows and columns of it, got {size!r}: write window_size=14',
            dict(window_size=14),
        )
    rows, columns = sides
    return rows, columns


def _in_windows(attention: nn.Module, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(attention).forward, attention)
    windows: Any = attention.windows
    (rows, columns), (height, width) = windows.value, windows.size
    if rows <= height and columns <= width:
        return forward(tokens, *args, **kwargs)
    before = tokens.shape[1] - rows * columns
    image = tokens[:, before:].unflatten(1, (rows, columns))
    prefix: list[Tensor] = []
    strips: list[Tensor] = []
    rest: list[None] | None = None
    for vertical, tall in _bands(rows, height):
        strip = []
        for horizontal, wide in _bands(columns, width):
            region = _Region(vertical, horizontal, tall, wide)
            inside = region.cut(image)
            count = inside.shape[0] // tokens.shape[0]
            shared = tokens[:, :before].repeat_interleave(count, 0)
            moved = _positions_in(region, kwargs, (rows, columns), tokens.shape[0])
            result = forward(torch.cat([shared, inside], 1), *args, **moved)
            if isinstance(result, tuple):
                # Weights of attention, of which nobody makes a map.
                rest = [None] * (len(result) - 1)
                result = result[0]
            share = count * tall * wide / (rows * columns)
            prefix.append(share * result[:, :before].unflatten(0, (-1, count)).mean(1))
            strip.append(region.joined(result[:, before:]))
        strips.append(torch.cat(strip, 2))
    total = torch.stack(prefix).sum(0)
    merged = torch.cat([total, torch.cat(strips, 1).flatten(1, 2)], 1)
    return merged if rest is None else (merged, *rest)


def _bands(length: int, window: int) -> Iterator[tuple[slice, int]]:
    """The part of a side that windows divide, and what is left; their lengths there."""
    whole = length - length % window
    if whole:
        yield slice(0, whole), window
    if whole < length:
        yield slice(whole, length), length - whole


class _Region(NamedTuple):
    """A part of the image, and the size of the windows that divide it."""

    vertical: slice
    horizontal: slice
    tall: int
    wide: int

    def cut(self, image: Tensor) -> Tensor:
        """Map (N, rows, columns, C) to (N * count, patches, C)."""
        part = image[:, self.vertical, self.horizontal]
        cells = part.unflatten(2, (-1, self.wide)).unflatten(1, (-1, self.tall))
        return cells.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def joined(self, windows: Tensor) -> Tensor:
        """Map (N * count, patches, C) to this part of (N, rows, columns, C)."""
        down = (self.vertical.stop - self.vertical.start) // self.tall
        across = (self.horizontal.stop - self.horizontal.start) // self.wide
        cells = windows.unflatten(1, (self.tall, self.wide))
        cells = cells.unflatten(0, (-1, down, across))
        return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _positions_in(
    region: _Region, given: Mapping[str, Any], grid: Size, batch: int
) -> dict[str, Any]:
    """Arguments of an attention, with the positions of the patches of each window."""

    def cut(positions: Any) -> Any:
        if isinstance(positions, tuple):
            return tuple(map(cut, positions))
        if positions is None:
            return None
        # Of every head, or the same for all.
        heads = positions.reshape(-1, *grid, positions.shape[-1])
        inside = region.cut(heads).unflatten(0, (heads.shape[0], -1))
        return inside.transpose(0, 1).repeat(batch, 1, 1, 1)

    return {
        name: cut(value) if name in _POSITIONS else value
        for name, value in given.items()
    }
