"""Which of timm's nets are plain ViTs, and where their attention is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ...errors import ArgumentError
from ..windows import attend_in_windows


def use_windows(
    net: nn.Module,
    size: int | Sequence[int] | None,
    global_blocks: int | Sequence[int] | None,
    owner: str,
) -> None:
    """Confine the attention of a plain ViT to windows: ViT, DINOv2, DINOv3, EVA-02.

    Args:
        net: An extractor, changed in place.
        size: As for :func:`~mmdet_backbones.adapters.windows.attend_in_windows`.
        global_blocks: As there.
        owner: Name of the backbone, for the message.

    Raises:
        ValueError: If it is another net, or the arguments are none for it.
    """
    if size is None:
        raise ArgumentError(
            f'{owner}: global_blocks={global_blocks!r} has no effect without '
            'window_size: write window_size=14 beside it, or leave it out',
            dict(window_size=14),
        )
    model: Any = getattr(net, 'model', None)
    plain = isinstance(model, (VisionTransformer, Eva))
    if not plain or not all(hasattr(block, 'attn') for block in model.blocks):
        raise ArgumentError(
            f'{owner} is no plain ViT of a kind whose attention can be confined to '
            'windows; vit, deit, dinov2, dinov3 and eva02 are: leave out window_size '
            'and global_blocks',
            dict(window_size=None, global_blocks=None),
        )
    attentions = [block.attn for block in model.blocks]
    attend_in_windows(model.patch_embed.proj, attentions, size, global_blocks, owner)
