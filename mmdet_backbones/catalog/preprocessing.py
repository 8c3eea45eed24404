"""Mean, standard deviation and channel order that the weights of a backbone expect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from ..levels import IMAGENET, Preprocess
from . import mmpretrain_names
from .entry import Entry

_CAFFE_STD = (57.375, 57.12, 58.395)
_CAFFE_MEAN = (103.53, 116.28, 123.675)
# mmdet's own nets, by the address of their weights; first match. Values as in the
# configs of mmdet 3.3.0 that use them.
_BY_WEIGHTS: tuple[tuple[str, Preprocess], ...] = (
    (r'detectron2/resnext|regnetx', Preprocess(_CAFFE_MEAN, _CAFFE_STD, 'bgr')),
    (r'cspnext', Preprocess(_CAFFE_MEAN, _CAFFE_STD, 'bgr')),
    (r'caffe', Preprocess(_CAFFE_MEAN, (1.0, 1.0, 1.0), 'bgr')),
    (r'darknet', Preprocess((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), 'rgb')),
    (
        r'resnest',
        Preprocess((123.68, 116.779, 103.939), (58.393, 57.12, 57.375), 'rgb'),
    ),
    (r'', IMAGENET),
)


def preprocess_of(entry: Entry, net: nn.Module) -> Preprocess | None:
    """Find how images are prepared for a backbone.

    Args:
        entry: Of the catalog.
        net: Built from it, on the meta device or not.

    Returns:
        What the net itself says, else what mmpretrain's config of its weights or
        mmdet's configs with its weights say; None if there are no weights to fit.
    """
    own = getattr(net, 'preprocess', None)
    if own is not None:
        return own
    if entry.source == 'mmpretrain':
        return _of_model_zoo(entry)
    if entry.source == 'mmdet' and entry.weights:
        fitting = (p for key, p in _BY_WEIGHTS if re.search(key, str(entry.weights)))
        return next(fitting)
    return None


def preprocess_of_weights(checkpoint: str) -> Preprocess | None:
    """Find how images are prepared for weights of a class that does not say it.

    Args:
        checkpoint: As a config names it.

    Returns:
        The usual values of ImageNet or those of the weights' own kind; None for files
        and addresses that nothing is known of.
    """
    known = r'^(torchvision|timm|open-mmlab)://|download\.(openmmlab|pytorch)\.'
    if not re.search(known, checkpoint):
        return None
    return next(p for key, p in _BY_WEIGHTS if re.search(key, checkpoint))


def preprocess_settings(wanted: Preprocess) -> dict[str, Any]:
    """Arguments of mmdet's ``DetDataPreprocessor``, which reads images as BGR."""
    return dict(
        mean=[round(value, 3) for value in wanted.mean],
        std=[round(value, 3) for value in wanted.std],
        bgr_to_rgb=wanted.channel_order == 'rgb',
    )


def _of_model_zoo(entry: Entry) -> Preprocess | None:
    zoo = mmpretrain_names.model_zoo()
    for name, file, weights, _ in mmpretrain_names.published(zoo):
        if not (weights and weights == entry.weights) and not entry.name.endswith(
            f'/{name}'
        ):
            continue
        given = Config.fromfile(zoo / file).get('data_preprocessor')
        if isinstance(given, Mapping) and 'mean' in given:
            order = 'rgb' if given.get('to_rgb') else 'bgr'
            return Preprocess(tuple(given['mean']), tuple(given['std']), order)
    return None
