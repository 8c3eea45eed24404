"""Backbones of other libraries under the same contract, one folder per library."""

from . import mmpretrain, timm, torchvision  # noqa: F401
