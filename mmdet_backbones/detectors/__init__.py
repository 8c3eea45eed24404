"""Detectors that mmdet has not: RT-DETR."""

from . import rtdetr, varifocal_loss  # noqa: F401
