"""Boxes in images, folders, videos and cameras, by a detector of any kind."""

from .detector import Detector as Detector

__all__ = ['Detector']
