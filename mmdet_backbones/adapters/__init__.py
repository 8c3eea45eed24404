"""Backbones of other libraries under the same contract, one folder per library."""

from . import mmpretrain, timm, torchvision, transformers  # noqa: F401
