"""RT-DETR with the weights that transformers publishes."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import PretrainedWeightsError
from ..weights.loading.loader import load_checkpoint
from ..weights.loading.matching import Match, match
from ..weights.loading.report import LoadReport, some
from ..weights.names.dialect import is_computed
from ..weights.reading.reader import read_checkpoint
from .names import RTDETR_OF_TRANSFORMERS

_BACKBONE = ('model.backbone.', 'backbone.')
# Older files hold the branches of the decoder a second time.
_TWICE = ('class_embed.', 'bbox_embed.')


def load_published(detector: Any, source: str) -> LoadReport:
    """Load a whole detector from a file of ``RTDetrForObjectDetection``.

    The detector must be that of the file: its number of classes, queries' layers and
    backbone. Training goes on from what this loads with another number of classes as
    it does in mmdet, by ``load_from``, which leaves their branches out.

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
