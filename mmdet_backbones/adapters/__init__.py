"""Backbones of other libraries under the same contract, one file per library."""

from . import (  # noqa: F401
    mmpretrain_backbone,
    mmpretrain_hierarchical,
    mmpretrain_mobile,
    timm_backbone,
    torchvision_backbone,
)
