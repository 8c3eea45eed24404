"""timm's nets as feature extractors: built, run, and cut where no output needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
from timm.layers import Format, freeze_batch_norm_2d
from torch import Tensor, nn

from ...shapes.build import on_default_device
from ..inputs import fit_map, pad_to_multiple

FROZEN_BN = 'FrozenBN'
Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class SizeRule:
    """Which images a net takes.

    Attributes:
        arguments: For ``timm.create_model``.
        multiple: Height and width are padded to multiples of it.
        fixed: The one (height, width) the net takes, or None.
    """

    arguments: Options
    multiple: int = 1
    fixed: tuple[int, int] | None = None


def check_name(model_name: str) -> None:
    """Raise a ``ValueError`` with the nearest names unless timm has the model."""
    if timm.is_model(model_name.split('.')[0]):
        return
    near = get_close_matches(model_name, timm.list_models(), n=3)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(f"timm {timm.__version__} has no model '{model_name}'{hint}")


def build(model_name: str, options: Options, indices: Sequence[int]) -> nn.Module:
    """Build the extractor of some levels, without weights from anywhere.

    Args:
        model_name: As in ``timm.create_model``.
        options: Its arguments; ``norm_layer='FrozenBN'`` freezes batch normalisation.
        indices: Level numbers, ascending.

    Returns:
        Maps (N, C, H, W) to a list of maps, see :func:`features`.
    """
    arguments = dict(options)
    frozen = arguments.get('norm_layer') == FROZEN_BN
    if frozen:
        del arguments['norm_layer']
    net: nn.Module = on_default_device(
        lambda: timm.create_model(
            model_name, features_only=True, out_indices=tuple(indices), **arguments
        )
    )
    return freeze_batch_norm_2d(net) if frozen else net


def features(
    net: nn.Module, x: Tensor, multiple: int = 1, strides: Sequence[int] | None = None
) -> list[Tensor]:
    """Run an extractor and bring its maps into the form of the contract.

    Args:
        net: From :func:`build`.
        x: Images (N, C, H, W).
        multiple: Pad H and W to multiples of it.
        strides: Stride of each output, to cut off what the padding added, or to
            surround a map with zeros that convolutions without padding made smaller;
            None leaves the maps as they are.

    Returns:
        One (N, C, ceil(H / stride), ceil(W / stride)) tensor per level.
    """
    height, width = x.shape[-2:]
    outputs = net(pad_to_multiple(x, multiple))
    if getattr(net, 'output_fmt', None) == Format.NHWC:
        outputs = [output.permute(0, 3, 1, 2) for output in outputs]
    if strides is None:
        return list(outputs)
    return [
        fit_map(output, (-(-height // stride), -(-width // stride)))
        for output, stride in zip(outputs, strides, strict=True)
    ]


def remove(net: nn.Module, name: str) -> None:
    """Replace a module by ``nn.Identity``."""
    replace(net, name, nn.Identity())


def replace(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of one."""
    parent, _, leaf = name.rpartition('.')
    setattr(net.get_submodule(parent), leaf, module)
