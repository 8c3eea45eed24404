"""The input side of a net of another library: channels and size of the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from ..shapes.structure import replace_part


def set_in_channels(net: nn.Module, in_channels: int, owner: str) -> None:
    """Give a net that was built for RGB images a first convolution of other width.

    Args:
        net: Changed in place; its first convolution in order of definition reads
            the image.
        in_channels: Channels of the image.
        owner: Name of the backbone, for the message.

    Raises:
        ValueError: If ``in_channels`` is not a positive integer, or the first
            convolution does not read three channels.
    """
    if type(in_channels) is not int or in_channels < 1:
        raise ValueError(
            f'{owner}: in_channels must be a positive integer, got {in_channels!r}'
        )
    if in_channels == 3:
        return
    convolutions = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    name, first = convolutions[0] if convolutions else ('', None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise ValueError(
            f'{owner} has no convolution of three channels at its start that could be '
            f'replaced: in_channels must be 3, got {in_channels}'
        )
    replace_part(net, name, _widened(first, in_channels))


def _widened(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) with zeros at the right and the bottom.

    Args:
        x: Images.
        multiple: H and W of the result are multiples of it, for nets that cut the
            image into patches or windows of a fixed size.

    Returns:
        ``x`` itself if its size fits.
    """
    height, width = x.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    return functional.pad(x, (0, right, 0, bottom)) if right or bottom else x


def fit_map(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    """Cut off what padding the image added, or surround a smaller map with zeros.

    Args:
        feature_map: Of shape (N, C, h, w).
        size: Height and width that it shall have.
    """
    if tuple(feature_map.shape[2:]) == tuple(size):
        return feature_map
    height, width = (
        max(wanted - given, 0)
        for wanted, given in zip(size, feature_map.shape[2:], strict=True)
    )
    # Convolutions without padding cut equal strips off opposite sides.
    top, left = height // 2, width // 2
    around = (left, width - left, top, height - top)
    return functional.pad(feature_map, around)[..., : size[0], : size[1]]
