"""Pretrained weights: read a file, recognise its dialect, load it, report coverage."""

from .dialect import Dialect
from .loader import load_pretrained
from .reader import CheckpointError, read_checkpoint
from .report import LoadReport, PretrainedWeightsError

__all__ = [
    'CheckpointError',
    'Dialect',
    'LoadReport',
    'PretrainedWeightsError',
    'load_pretrained',
    'read_checkpoint',
]
