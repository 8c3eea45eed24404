"""Which of transformers' nets are plain ViTs, and where their attention is."""

from __future__ import annotations

from torch import nn

from ..windows import ViTParts

WINDOWED = 'dinov2, dinov2_with_registers and dinov3_vit'
# The layers that map tokens to tokens; those inside them differ by implementation.
_ATTENTIONS = (
    'Dinov2Attention',
    'Dinov2WithRegistersAttention',
    'DINOv3ViTAttention',
)


def plain_vit_parts(net: nn.Module) -> ViTParts | None:
    """Find what windows are put into: DINOv2 with registers or without, DINOv3.

    Args:
        net: Of AutoBackbone.

    Returns:
        None of another net.
    """
    attentions = [x for x in net.modules() if type(x).__name__ in _ATTENTIONS]
    if not attentions:
        return None
    patches = net.get_submodule('embeddings.patch_embeddings')
    return ViTParts(getattr(patches, 'projection', patches), attentions)
