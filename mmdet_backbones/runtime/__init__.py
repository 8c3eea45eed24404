"""Runs what ``deploy`` wrote: numpy and one engine, without torch and mmdet.

``load(folder).predict(images)`` is all of it. A machine needs this package without
its dependencies, numpy, Pillow or OpenCV, and the engine that the folder names.
"""

from .detections import Detections
from .detector import ExportedDetector, load
from .folder import ExportedFolder, is_exported, read_folder

__all__ = [
    'Detections',
    'ExportedDetector',
    'ExportedFolder',
    'is_exported',
    'load',
    'read_folder',
]
