"""RT-DETR with the weights that transformers publishes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.registry import DefaultScope

from .. import __version__
from ..catalog.conversion import Conversion, write_weights
from ..errors import CheckpointError, PretrainedWeightsError, UserError
from ..files import path_of, target_problem
from ..weights.loading.loader import load_checkpoint
from ..weights.loading.matching import Match, match
from ..weights.loading.report import LoadReport, some
from ..weights.names.dialect import is_computed
from ..weights.reading.reader import read_checkpoint
from .names import RTDETR_OF_TRANSFORMERS
from .rtdetr import RTDETR

_BACKBONE = ('model.backbone.', 'backbone.')
# Older files hold the branches of the decoder a second time.
_TWICE = ('class_embed.', 'bbox_embed.')


def load_published(detector: Any, source: str) -> LoadReport:
    """Load a whole detector from a file of ``RTDetrForObjectDetection``.

    The detector must be that of the file: its classes, its layers and its backbone.

    Args:
        detector: An ``RTDETR`` on a backbone of this package; takes the weights in
            place.
        source: As ``checkpoint`` of ``init_cfg``.

    Returns:
        What the backbone took.

    Raises:
        CheckpointError: If the file cannot be read.
        PretrainedWeightsError: If it is of another detector; all that is missing, left
            over or of another shape is named, and nothing is changed but the backbone.
    """
    checkpoint = read_checkpoint(source)
    own = {
        key: value
        for key, value in detector.state_dict().items()
        if not key.startswith('backbone.')
    }
    found = match(checkpoint.state_dict, own, (RTDETR_OF_TRANSFORMERS,), ('',))
    problems = _problems(own, found)
    if problems:
        raise PretrainedWeightsError(
            f'{checkpoint.source} is not of this RT-DETR: {"; ".join(problems)}. Write '
            'decoder, neck and num_classes as in the config.json beside the file'
        )
    report = load_checkpoint(detector.backbone, checkpoint)
    with torch.no_grad():
        for key, tensor in found.found.items():
            own[key].copy_(tensor.make())
    return report


def convert_detector(
    source: str,
    model: dict[str, Any],
    target: str,
    licence: str | None = None,
    force: bool = False,
) -> Conversion:
    """Write a file of ``RTDetrForObjectDetection`` as ``load_from`` takes it.

    Args:
        source: As ``checkpoint`` of ``init_cfg``.
        model: ``model`` of a config of the same detector.
        target: Path of a ``.pth`` file.
        licence: Of the weights, to be stored with them.
        force: Replace a file that is there.

    Returns:
        What the backbone took, and what was stored beside the weights.

    Raises:
        CheckpointError: If the source cannot be read, or the target not be written.
        PretrainedWeightsError: If the source is of another detector.
        UserError: If the config is of a detector that no dialect is known for.
    """
    path = path_of(target)
    problem = target_problem(path, ('.pth',), force, new_folder=False)
    if problem:
        raise CheckpointError(problem)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(deepcopy(model))
    if not isinstance(detector, RTDETR):
        raise UserError(
            f'whole detectors are read into mmdet_backbones.RTDETR, this config has '
            f'{type(detector).__name__}: write --to with the name of its backbone, as '
            'mmdet-backbones list has it'
        )
    report = load_published(detector, source)
    meta = dict(
        net='RTDETR',
        source=report.source,
        source_sha256=report.sha256,
        source_names=RTDETR_OF_TRANSFORMERS.name,
        converted_by=f'mmdet_backbones {__version__}',
    )
    if licence is not None:
        meta['licence'] = licence
    write_weights(path, detector.state_dict(), meta)
    return Conversion(report, path, meta)


def _problems(own: dict[str, torch.Tensor], found: Match) -> list[str]:
    shapes = {key: tensor.shape for key, tensor in found.found.items()}
    missing = [key for key in own if key not in shapes and not is_computed(key)]
    other = [
        f'{key} ({tuple(own[key].shape)} here, {shape} there)'
        for key, shape in shapes.items()
        if tuple(own[key].shape) != shape
    ]
    surplus = [
        key
        for key in found.unexpected
        if not key.startswith((*_BACKBONE, *_TWICE)) and not is_computed(key)
    ]
    lists = {
        'it lacks': missing,
        'of another shape are': other,
        'it has more than the detector': surplus,
    }
    return [f'{text} {some(keys)}' for text, keys in lists.items() if keys]
