"""Parameters and operations of a detector, without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..detector_config.detector import DetectorConfig
from ..errors import explain
from ..pictures.photograph import read_pipeline
from ..shapes.build import build_weightless, fixed_size
from ..shapes.counting import counting
from ..shapes.repeated import repeated_shapes
from ..shapes.structure import count_parameters

_DIVISOR = 32
_USUAL = (640, 640)
_HEADS = ('rpn_head', 'bbox_head')


@dataclass(frozen=True)
class Costs:
    """What one image costs.

    Attributes:
        parameters: Of the detector; None if it cannot be built.
        backbone_parameters: Of its backbone alone.
        flops: Floating-point operations of backbone, neck and dense head for one
            image, a multiply-add as two; None if they cannot be counted. The second
            stage of a two-stage detector is not in it: it depends on the image.
        size: Height and width of that image, which are those of the test.
        parts: What the operations are of.
        flops_per_region: Of the second stage; 0 without one.
        problem: Why something is None.
    """

    parameters: int | None = None
    backbone_parameters: int | None = None
    flops: int | None = None
    size: tuple[int, int] | None = None
    parts: tuple[str, ...] = ()
    problem: str = ''
    flops_per_region: int = 0


def measure_costs(cfg: Config) -> Costs:
    """Build a config's detector on the meta device and count.

    Args:
        cfg: The whole config; it is not changed.

    Returns:
        The counts; what cannot be had is None.
    """
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = DetectorConfig(cfg)
    try:
        with DefaultScope.overwrite_default_scope(config.scope):
            detector = build_weightless(config.model)
    except Exception as error:  # of classes that nobody here wrote
        return Costs(problem=f'the detector cannot be built: {explain(error)}')
    parameters = count_parameters(detector)
    alone = count_parameters(detector.backbone)  # type: ignore[arg-type]
    size = fixed_size(detector.backbone) or image_size(cfg)  # type: ignore[arg-type]
    try:
        flops, parts = _count(detector, size, config.in_channels)
        region = _count_region(detector)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Costs(
            parameters,
            alone,
            size=size,
            problem=f'operations cannot be counted: {reason}',
        )
    return Costs(parameters, alone, flops, size, parts, flops_per_region=region)


def _count_region(detector: Any) -> int:
    """Operations of all second stages for one region."""
    given = getattr(getattr(detector, 'roi_head', None), 'bbox_head', None)
    if given is None:
        return 0
    heads = given if isinstance(given, torch.nn.ModuleList) else [given]
    total = 0
    with torch.no_grad(), torch.device('meta'):
        for head in heads:
            side = getattr(head, 'roi_feat_size', None)
            width = getattr(head, 'in_channels', None)
            # One that works on whole maps (C4) has layers of the backbone before it.
            if not side or not width or not getattr(head, 'shared_fcs', None):
                return 0
            with counting(head) as counter:
                head(torch.zeros(1, width, *side))
            total += counter.get_total_flops()
    return total


def _count(
    detector: Any, size: tuple[int, int], channels: int
) -> tuple[int, tuple[str, ...]]:
    parts = ['backbone', 'neck'] if getattr(detector, 'neck', None) else ['backbone']
    with (
        repeated_shapes(),
        counting(detector) as counter,
        torch.no_grad(),
        torch.device('meta'),
    ):
        maps = detector.extract_feat(torch.zeros(1, channels, *size))
        flops = counter.get_total_flops()
        for name in _HEADS:
            head = getattr(detector, name, None)
            if head is None:
                continue
            try:
                head(maps)
            except (TypeError, AttributeError, RuntimeError, ValueError):
                # A decoder needs more than the maps.
                break
            flops = counter.get_total_flops()
            parts.append('dense head')
            break
    return flops, tuple(parts)


def image_size(cfg: Config) -> tuple[int, int]:
    """Give the size of the images of the test, padded to a multiple of 32.

    Returns:
        Height and width; of a scale such as (1333, 800) the wide image. 640 x 640 if
        the config does not say.
    """
    for step in read_pipeline(cfg):
        scale = step.get('scale')
        if isinstance(scale, int):
            scale = (scale, scale)
        if isinstance(scale, Sequence) and all(type(side) is int for side in scale):
            height, width = (-(-side // _DIVISOR) * _DIVISOR for side in sorted(scale))
            return height, width
    return _USUAL
