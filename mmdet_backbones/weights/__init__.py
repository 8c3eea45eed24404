"""Pretrained weights: read a file, recognise its dialect, load it, report coverage."""

from .dialect import Dialect
from .loader import load_pretrained
from .reader import Checkpoint, CheckpointError, read_checkpoint, read_shapes
from .report import LoadReport, PretrainedWeightsError
from .sources import locate_checkpoint
from .unwrap import check_finite

__all__ = [
    'Checkpoint',
    'CheckpointError',
    'Dialect',
    'LoadReport',
    'PretrainedWeightsError',
    'check_finite',
    'load_pretrained',
    'locate_checkpoint',
    'read_checkpoint',
    'read_shapes',
]
