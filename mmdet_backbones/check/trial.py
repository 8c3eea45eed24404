"""Run a detector's config once on a synthetic batch: loss, backward, predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope

from ..detector_config.tree import Part, walk
from ..weights.loading.init_cfg import drop_pretrained

SIZE = (128, 128)
# Enough to test the decoder; small images have fewer places than a real query set.
_QUERIES = 20
# Proposals and boxes, of which R-CNN's heads would see hundreds for each image.
_FEW = dict(max_per_img=20, nms_pre=200, num=32)


@dataclass(frozen=True)
class Trial:
    """What one run showed.

    Attributes:
        loss: Sum of the losses, finite.
        boxes: Number of boxes predicted in all.
        idle: Trainable parameters of the backbone that got no gradient, which
            DistributedDataParallel refuses.
    """

    loss: float
    boxes: int
    idle: tuple[str, ...]


def try_config(path: Path, size: tuple[int, int] = SIZE) -> Trial:
    """Build the detector of a config with random weights and run it.

    Args:
        path: Of the config.
        size: Height and width of the images.

    Returns:
        What the run showed.

    Raises:
        ValueError: If the loss is not finite.
    """
    config = Config.fromfile(path)
    init_default_scope(config.get('default_scope', 'mmdet'))
    return try_model(config.model, size)


def try_model(model: Any, size: tuple[int, int] = SIZE) -> Trial:
    """As :func:`try_config`, for ``model`` of a config."""
    if 'num_queries' in model:
        model.num_queries = min(model.num_queries, _QUERIES)
    for _, part in (*walk(model.get('train_cfg')), *walk(model.get('test_cfg'))):
        for key in _FEW.keys() & part.keys():
            if isinstance(part[key], int):
                part[key] = min(part[key], _FEW[key])
    detector = random_detector(model)
    batch = synthetic_batch(model, size, boxes=(2, 3))
    detector.train()
    data = detector.data_preprocessor(batch, True)
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    if not torch.isfinite(loss):
        raise ValueError(f'the loss is {float(loss)}')
    idle = tuple(
        name
        for name, parameter in detector.backbone.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    )
    return Trial(loss.item(), _predict(detector, batch), idle)


def _predict(detector: Any, batch: dict[str, Any]) -> int:
    # mmdet's own nets return None from eval().
    detector.eval()
    data = detector.data_preprocessor(batch, False)
    with torch.no_grad():
        results = detector(**data, mode='predict')
    return sum(len(result.pred_instances) for result in results)


def random_detector(model: Any) -> Any:
    """Build a detector from random numbers; nothing is downloaded.

    Args:
        model: ``model`` of a config; pretrained weights are taken out of it.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    for _, part in walk(model):
        drop_pretrained(part)
    # Heads synchronise over GPUs, which are not there.
    detector = revert_sync_batchnorm(MODELS.build(model))
    detector.init_weights()
    # YOLOX's multi-scale training asks for the number of the iteration.
    MessageHub.get_current_instance().update_info('iter', 0)
    MessageHub.get_current_instance().update_info('epoch', 0)
    return detector


def synthetic_batch(
    model: Part, size: tuple[int, int], boxes: Sequence[int], device: str = 'cpu'
) -> dict[str, Any]:
    """Make images of noise with boxes of the first class, as a data loader gives them.

    Args:
        model: ``model`` of a config, which says whether masks are needed.
        size: Height and width of the images.
        boxes: Number of boxes for each image.
        device: Of the images.
    """
    from mmdet.testing import demo_mm_inputs

    masks = (model.get('roi_head') or {}).get('mask_head') or model.get('mask_head')
    batch = demo_mm_inputs(
        len(boxes),
        [[3, *size]] * len(boxes),
        num_items=list(boxes),
        num_classes=2,
        with_mask=bool(masks),
        device=device,
    )
    for sample in batch['data_samples']:
        # The first class is one that every head has.
        sample.gt_instances.labels.zero_()
    return batch
