"""How a detector is trained with a backbone of some family: one table, with sources.

Every figure is for a batch of 16 images, as in mmdet's R-CNN configs, and scaled to
the batch of the base by the square root, the rule for Adam (arXiv 2205.10287).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones.layer_groups import layer_groups

BATCH = 16


@dataclass(frozen=True)
class Traits:
    """What a recipe is chosen by.

    Attributes:
        model: Name of the net without its source, in lower case.
        weights: Where its weights are, or None for random ones.
        source: Of the catalog.
        strides: Of all of its levels.
        batch_norm: Whether it has batch normalisation.
        attention: Whether it has attention over tokens.
        token_norm: Whether it has layer or RMS normalisation.
        groups: Number of its layer groups, the stem among them.
    """

    model: str
    weights: str | None
    source: str
    strides: tuple[int, ...]
    batch_norm: bool
    attention: bool
    token_norm: bool
    groups: int


@dataclass(frozen=True)
class Recipe:
    """An optimiser for a family.

    Attributes:
        family: What it is for.
        fits: Tells whether a backbone belongs to it; the first recipe that fits is
            taken.
        source: Where the figures are from.
        lr: Learning rate of AdamW for a batch of 16, None to keep the base's optimiser.
        weight_decay: Of AdamW; none for normalisation, biases and embeddings.
        stem_share: Share of the full learning rate that the stem learns with; layers
            between fall evenly. 1 for no layer-wise decay.
        warm_up: Iterations of linear warm-up.
        clip_norm: Largest norm of the gradient, or None for no clipping.
    """

    family: str
    fits: Callable[[Traits], bool]
    source: str
    lr: float | None = None
    weight_decay: float = 0.05
    stem_share: float = 1.0
    warm_up: int = 1000
    clip_norm: float | None = None

    def rate(self, batch: int) -> float:
        """Learning rate for a batch, two digits."""
        assert self.lr is not None
        return float(f'{self.lr * math.sqrt(batch / BATCH):.2g}')

    def decay_rate(self, groups: int) -> float:
        """Factor of the learning rate from one layer group to the one before it."""
        if self.stem_share == 1.0:
            return 1.0
        rate = self.stem_share ** (1 / max(groups, 1))
        return round(min(max(rate, 0.7), 0.95), 2)


def _plain_vit(net: Traits) -> bool:
    return len(net.strides) == 1 and net.attention


def _convnext(net: Traits) -> bool:
    return net.token_norm and not net.batch_norm and not net.attention


def _transformer(net: Traits) -> bool:
    return net.attention or (net.token_norm and not net.batch_norm)


def _efficient(net: Traits) -> bool:
    return (
        re.search(
            r'efficientnet|mobilenet_?v3|mobilenet-v3|mobilenetv[45]|lcnet|mnasnet|'
            r'fbnet|mixnet|regnet_?y|ghostnet|repvit|mobileone|nfnet',
            net.model,
        )
        is not None
    )


# Tags of timm's weights that were trained with the classical recipe of ResNet: SGD,
# step decay, no strong augmentation.
_CLASSICAL_TAGS = re.compile(r'((tv|gluon|ms|ssld)_)?in1k$|$')
# Attention between places of a map; gates over channels, and plugins of a ResNet, are
# something else.
_ATTENTION = re.compile(
    r'(?<!Channel)(?<!Split)(?<!Generalized)(Attention|MSA)|CrossCovarianceAttn'
)


def _modern_weights(net: Traits) -> bool:
    if net.weights is None:
        return False
    if net.source == 'timm':
        tag = _timm_tag(net.weights)
        return tag is not None and _CLASSICAL_TAGS.match(tag) is None
    return re.search(r'_V2\b|[-_]rsb[-_]|/rsb/', net.weights) is not None


def _timm_tag(weights: str) -> str | None:
    if not weights.startswith('timm://'):
        return None
    name = weights.removeprefix('timm://')
    if '.' in name:
        return name.partition('.')[2]
    import timm

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return cfg.tag if cfg is not None else None


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        'plain ViT',
        _plain_vit,
        'ViTDet, arXiv 2203.16527, app. A.2: AdamW, weight decay 0.1, layer-wise decay '
        '0.7 (12 blocks), 0.8 (24), 0.9 (32), 1e-4 for a batch of 64',
        lr=5e-5,
        weight_decay=0.1,
        stem_share=0.01,
        clip_norm=1.0,
    ),
    Recipe(
        'ConvNeXt and other nets with layer normalisation',
        _convnext,
        "ConvNeXt, arXiv 2201.03545, app. A.3, and mmdet's configs/convnext: AdamW "
        '1e-4 to 2e-4, weight decay 0.05, layer-wise decay 0.7 over 7 groups of layers',
        lr=1e-4,
        stem_share=0.08,
        clip_norm=1.0,
    ),
    Recipe(
        'hierarchical transformer',
        _transformer,
        "Swin, arXiv 2103.14030, app. A2.2, and mmdet's configs/swin: AdamW 1e-4, "
        'weight decay 0.05 but for normalisation and position; the mild layer-wise '
        'decay is our choice',
        lr=1e-4,
        stem_share=0.5,
        clip_norm=1.0,
    ),
    Recipe(
        'EfficientNet, MobileNetV3 and their kin',
        _efficient,
        'trained with RMSprop or AdamW by their authors (arXiv 1905.11946, sec. 5.2; '
        '1905.02244, sec. 6.1), so adaptive here: rates as for modern ResNet weights',
        lr=2e-4,
        warm_up=500,
        clip_norm=10.0,
    ),
    Recipe(
        'convolutional net with weights of a modern recipe',
        _modern_weights,
        "mmdet's configs/resnet_strikes_back (pull request 7001; arXiv 2110.00476): "
        'AdamW 2e-4, weight decay 0.05, Faster R-CNN 37.4 -> 40.8 AP; SGD loses 5 AP '
        'with such weights (pytorch/vision V2, mmdetection 8497)',
        lr=2e-4,
        warm_up=500,
    ),
    Recipe(
        'convolutional net',
        lambda net: True,
        "the base's own optimiser, chosen for a net of this kind",
    ),
)


def choose_recipe(net: Traits) -> Recipe:
    """Return the first recipe of the table that fits."""
    return next(recipe for recipe in RECIPES if recipe.fits(net))


def traits(
    net: nn.Module,
    name: str,
    source: str,
    weights: str | None,
    strides: Sequence[int],
) -> Traits:
    """Look at a backbone.

    Args:
        net: On the meta device.
        name: Of the catalog.
        source: Of the catalog.
        weights: That training starts from, or None.
        strides: Of all of its levels.
    """
    kinds = {type(module).__name__ for module in net.modules()}
    return Traits(
        model=name.rpartition('/')[2].lower(),
        weights=weights,
        source=source,
        strides=tuple(sorted(set(strides))),
        batch_norm=any(isinstance(module, _BatchNorm) for module in net.modules()),
        attention=any(_ATTENTION.search(kind) for kind in kinds),
        token_norm=any(re.search('LayerNorm|RmsNorm|LN2d', kind) for kind in kinds),
        groups=len(layer_groups(net)),
    )
