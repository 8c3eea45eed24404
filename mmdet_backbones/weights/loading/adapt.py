"""Fit tensors of another shape where there is one right way to do it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from .target import Target

Shape = tuple[int, ...]
_POSITIONS = re.compile(
    r'(?:absolute_)?pos_embed(?:_?\d+)?|pos_embedding|position_embeddings|patch_pos'
)
_BIAS_TABLE = 'relative_position_bias_table'
_BIAS_LINES = ('rel_pos_h', 'rel_pos_w')
# More than the class token, a distillation token and four registers nobody has.
_MOST_TOKENS = 16


def adapt(
    net: Target,
    key: str,
    tensor: Tensor,
    target: Shape,
    image: tuple[int, int] | None = None,
) -> tuple[Tensor, str] | None:
    """Bring a tensor into another shape.

    Args:
        net: Takes the weights.
        key: Name of the tensor in it.
        tensor: From the file, as the net would take it.
        target: Shape in the net.
        image: Height and width that the tensor was made for; square if not known.

    Returns:
        The tensor and what was done, in words, or None if there is no right way.
    """
    leaf = key.rpartition('.')[2]
    rules: list[Callable[[], tuple[Tensor, str] | None]] = [
        lambda: _reshaped(tensor, target),
        lambda: _stem(net, key, tensor, target),
    ]
    if _POSITIONS.fullmatch(leaf):
        rules.append(lambda: _positions(_owner(net, key), tensor, target, image))
    if leaf == _BIAS_TABLE:
        rules.append(lambda: _bias_table(_owner(net, key), tensor, target))
    if leaf in _BIAS_LINES:
        rules.append(lambda: _bias_line(tensor, target))
    for rule in rules:
        fitted = rule()
        if fitted is not None and tuple(fitted[0].shape) == target:
            return fitted
    return None


def is_table(key: str) -> bool:
    """Tell whether a tensor has one entry for each place of a grid."""
    leaf = key.rpartition('.')[2]
    return leaf == _BIAS_TABLE or _POSITIONS.fullmatch(leaf) is not None


def regrid(
    net: Target, key: str, table: Tensor, image: tuple[int, int] | None = None
) -> tuple[Tensor, str] | None:
    """Arrange a table of as many places as a net's by the grid of the net.

    196 positions are 14 x 14 in a published file, and 7 x 28 in a net of wide images.

    Args:
        net: Takes the weights.
        key: Name of the table in it, see :func:`is_table`.
        table: From the file, of the shape that the net has.
        image: Height and width that it was made for; square if not known.

    Returns:
        As :func:`adapt`; None if the table is as the net would have it.
    """
    target, owner = tuple(table.shape), _owner(net, key)
    if not key.endswith(_BIAS_TABLE):
        # Four dimensions say themselves which grid it is.
        fitted = _positions(owner, table, target, image) if len(target) == 3 else None
    elif image is None or image[0] == image[1]:
        fitted = _bias_table(owner, table, target)
    else:
        fitted = None
    return None if fitted is None or fitted[0] is table else fitted


def _owner(net: Target, key: str) -> nn.Module:
    return net.get_submodule(key.rpartition('.')[0])


def _reshaped(tensor: Tensor, target: Shape) -> tuple[Tensor, str] | None:
    """A linear layer as a 1x1 convolution, a scale per channel as (C, 1, 1)."""
    here = [size for size in target if size != 1]
    there = [size for size in tensor.shape if size != 1]
    if here != there:
        return None
    return tensor.reshape(target), 'the same numbers in other dimensions'


def _stem(
    net: Target, key: str, tensor: Tensor, target: Shape
) -> tuple[Tensor, str] | None:
    """Kernels that read another number of channels of the image.

    Each channel gets the kernel of one of the file's, in turn, times 3/n, as in timm:
    all kernels together stay as strong. A single channel gets their sum, which is what
    a grey image shown as RGB would have given.
    """
    if tensor.dim() != 4 or len(target) != 4:
        return None
    given, wanted = tensor.shape[1], target[1]
    others = (tensor.shape[0], *tensor.shape[2:]) == (target[0], *target[2:])
    if not others or given == wanted or (given != 3 and key != _first_kernel(net)):
        return None
    if wanted == 1:
        return tensor.float().sum(1, keepdim=True), f'summed over {given} channels'
    order = torch.arange(wanted, device=tensor.device) % given
    scale = given / wanted
    return (
        tensor.index_select(1, order) * scale,
        f'{given} input channels repeated to {wanted}, times {given}/{wanted}',
    )


def _first_kernel(net: Target) -> str | None:
    return next((n for n, p in net.named_parameters() if p.dim() == 4), None)


def _positions(
    owner: nn.Module, tensor: Tensor, target: Shape, image: tuple[int, int] | None
) -> tuple[Tensor, str] | None:
    """Interpolate a position embedding (1, tokens, C) or (1, H, W, C)."""
    from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc

    if len(target) != tensor.dim() or tensor.shape[-1] != target[-1]:
        return None
    if len(target) == 4:
        sizes = f'{_text(tensor.shape[1:3])} to {_text(target[1:3])}'
        fitted = resample_abs_pos_embed_nhwc(tensor, list(target[1:3]))
        return fitted, f'positions interpolated from {sizes}'
    if len(target) != 3:
        return None
    new, extra = _grid(owner, target[1])
    old = _arranged(tensor.shape[1] - extra, image)
    if new is None or old is None:
        return None
    fitted = resample_abs_pos_embed(tensor, list(new), list(old), extra)
    return fitted, f'positions interpolated from {_text(old)} to {_text(new)}'


def _arranged(places: int, image: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of so many places on an image, which is square if not known."""
    height, width = image or (1, 1)
    rows = isqrt(max(places, 0) * height // width)
    if not rows or places % rows or rows * width != places // rows * height:
        return None
    return rows, places // rows


def _grid(owner: nn.Module, tokens: int) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of the patches of a net, and its tokens besides them."""
    patches = getattr(owner, 'patch_embed', None)
    for name in ('grid_size', 'init_out_size'):
        grid = getattr(patches, name, None)
        if grid is not None and 0 <= tokens - grid[0] * grid[1] <= _MOST_TOKENS:
            return (int(grid[0]), int(grid[1])), tokens - int(grid[0] * grid[1])
    side = isqrt(tokens)
    extra = tokens - side * side
    return ((side, side), extra) if extra <= _MOST_TOKENS else (None, 0)


def _bias_table(
    owner: nn.Module, tensor: Tensor, target: Shape
) -> tuple[Tensor, str] | None:
    """Interpolate Swin's relative position bias ((2h - 1)(2w - 1), heads).

    That of MaxViT from TensorFlow is (heads, 2h - 1, 2w - 1).
    """
    from timm.layers import resize_rel_pos_bias_table

    if tensor.dim() == len(target) == 3 and tensor.shape[0] == target[0]:
        here, there = (
            ((rows + 1) // 2, (columns + 1) // 2)
            for rows, columns in (target[1:], tensor.shape[1:])
        )
        fitted = resize_rel_pos_bias_table(tensor, here, target)
        return (
            fitted,
            f'bias of windows interpolated from {_text(there)} to {_text(here)}',
        )
    if tensor.dim() != 2 or len(target) != 2 or tensor.shape[1] != target[1]:
        return None
    window = getattr(owner, 'window_size', None)
    if window is None:
        side = (isqrt(target[0]) + 1) // 2
        window = (side, side)
    extra = target[0] - (2 * window[0] - 1) * (2 * window[1] - 1)
    side = isqrt(max(tensor.shape[0] - extra, 0))
    if extra < 0 or side * side + extra != tensor.shape[0] or side % 2 == 0:
        return None
    fitted = resize_rel_pos_bias_table(tensor, tuple(window), target)
    old = (side + 1) // 2
    return (
        fitted,
        f'bias of windows interpolated from {old} x {old} to {_text(window)}',
    )


def _bias_line(tensor: Tensor, target: Shape) -> tuple[Tensor, str] | None:
    """Interpolate the positions along one side (2s - 1, C) of SAM, ViTDet and MViT."""
    if tensor.dim() != 2 or len(target) != 2 or tensor.shape[1] != target[1]:
        return None
    line = tensor.float().T[None]
    fitted = nn.functional.interpolate(line, size=target[0], mode='linear')[0].T
    old, new = ((n + 1) // 2 for n in (tensor.shape[0], target[0]))
    return fitted, f'positions along a side interpolated from {old} to {new}'


def _text(size: Sequence[int]) -> str:
    return ' x '.join(str(int(s)) for s in size)
