"""Backbones of other libraries under the same contract, one file per library."""

from . import timm_backbone  # noqa: F401
