"""Backbones written here: one file per family, one import line per family."""

from .residual import res2net, resnet  # noqa: F401
