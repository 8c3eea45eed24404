"""Pretrained weights: read a file, recognise its dialect, load it, report coverage."""

from ..errors import PretrainedWeightsError
from .loading.loader import load_pretrained
from .loading.report import LoadReport
from .names.dialect import Dialect
from .reading.reader import Checkpoint, CheckpointError, read_checkpoint, read_shapes
from .reading.sources import locate_checkpoint
from .reading.values import check_finite

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
