"""Which of timm's nets are plain ViTs, and where their attention is."""

from __future__ import annotations

from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..windows import ViTParts

WINDOWED = 'vit, deit, dinov2, dinov3 and eva02'


def plain_vit_parts(net: nn.Module) -> ViTParts | None:
    """Find what windows are put into: ViT, DeiT, DINOv2, DINOv3, EVA-02.

    Args:
        net: An extractor.

    Returns:
        None of another net.
    """
    model: Any = getattr(net, 'model', None)
    plain = isinstance(model, (VisionTransformer, Eva))
    if not plain or not all(hasattr(block, 'attn') for block in model.blocks):
        return None
    return ViTParts(model.patch_embed.proj, [block.attn for block in model.blocks])
