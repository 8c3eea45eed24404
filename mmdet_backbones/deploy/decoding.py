"""What every decoder gives, and which one decodes a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .suppression import MOST_CANDIDATES, Found, gather, suppress

# Each has `build(model) -> Decoder | None`; the first that knows the detector is it.
_KINDS = ('two_stage', 'queries', 'dense', 'yolo', 'centernet')
_NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


@dataclass(frozen=True)
class Limits:
    """What a detector's ``test_cfg`` says about its boxes.

    Attributes:
        score: Boxes are those whose score is over it.
        nms_iou: Overlap from which one of two boxes of a class goes; None keeps both.
        class_agnostic: Whether boxes of other classes count as well.
        max_per_image: Number of boxes in the result.
    """

    score: float
    nms_iou: float | None
    class_agnostic: bool
    max_per_image: int


class Decoder(nn.Module):
    """From the maps of a detector to its boxes, with shapes that depend on no value.

    Attributes:
        limits: What holds for the boxes.
        num_classes: Of the detector.
    """

    def __init__(self, limits: Limits, num_classes: int) -> None:
        super().__init__()
        self.limits = limits
        self.num_classes = num_classes

    def forward(
        self, features: Sequence[Tensor], sizes: Tensor, padded: tuple[int, int]
    ) -> Found:
        """Decode.

        Args:
            features: Maps that ``extract_feat`` of the detector returns, (N, C, H, W).
            sizes: (N, 2) height and width in pixels to which boxes are clipped.
            padded: Height and width of the images with their padding.

        Returns:
            Boxes (N, K, 4) as x1, y1, x2, y2 in pixels, scores (N, K) in descending
            order and labels (N, K); 0, 0 and -1 where there are fewer boxes.
        """
        raise NotImplementedError

    def keep_best(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Found:
        """Suppress what overlaps a better box, within the limits of the detector.

        Args:
            boxes: (N, M, 4).
            scores: (N, M); those below zero are no boxes.
            labels: (N, M).
        """
        count = scores.shape[1]
        if isinstance(count, int) and count > MOST_CANDIDATES:
            scores, order = scores.topk(MOST_CANDIDATES, dim=1)
            boxes, labels = gather(boxes, order), labels.gather(1, order)
        return suppress(
            boxes,
            scores,
            labels,
            self.limits.nms_iou,
            self.limits.max_per_image,
            self.limits.class_agnostic,
            self.num_classes,
        )


def decoder_of(model: Any) -> Decoder:
    """Make the decoder of a detector.

    Args:
        model: A detector of mmdet.

    Returns:
        What decodes it as its own ``predict`` does.

    Raises:
        UserError: If there is none, or a setting of ``test_cfg`` has no counterpart.
    """
    for kind in _KINDS:
        decoder = import_module(f'.{kind}', __package__).build(model)
        if decoder is not None:
            return decoder
    head = getattr(model, 'bbox_head', None) or getattr(model, 'roi_head', None)
    named = f' with the head {type(head).__name__}' if head is not None else ''
    raise UserError(
        f'{type(model).__name__}{named} cannot be exported: its way from maps to boxes '
        'is not known here; docs/export.md lists the detectors that can be'
    )


def candidates_of(test_cfg: Mapping[str, Any], key: str) -> int:
    """Read how many candidates of a level are looked at.

    Args:
        test_cfg: That of a head.
        key: Of it in the config, for messages.

    Raises:
        UserError: If there is no bound, which a graph cannot be without.
    """
    count = test_cfg.get('nms_pre', -1)
    if count < 1:
        raise UserError(
            'the graph of an exported detector holds a fixed number of candidates: '
            f'write {key}.nms_pre = 1000'
        )
    return count


def limits_of(
    test_cfg: Mapping[str, Any], key: str, default_count: int | None = None
) -> Limits:
    """Read what a detector is tested with, or say what cannot be in a graph.

    Args:
        test_cfg: That of a head.
        key: Of it in the config, for messages.
        default_count: Boxes of an image where ``max_per_img`` is left out.

    Raises:
        UserError: With all that has to be written otherwise.
    """
    nms = test_cfg.get('nms')
    settings = dict(nms or {})
    problems = []
    kind = settings.get('type', 'nms')
    if kind != 'nms':
        problems.append(f"{key}.nms.type is '{kind}': write {key}.nms.type = 'nms'")
    elif unknown := settings.keys() - _NMS_KEYS:
        problems += [
            f'{key}.nms.{name}: write {key}.nms = '
            f"dict(type='nms', iou_threshold={settings.get('iou_threshold')})"
            for name in sorted(unknown)
        ]
    if test_cfg.get('min_bbox_size', 0) > 0:
        problems.append(
            f'{key}.min_bbox_size is {test_cfg["min_bbox_size"]} pixels of the '
            f'original image: write {key}.min_bbox_size = 0'
        )
    count = test_cfg.get('max_per_img', default_count)
    if not isinstance(count, int) or count < 1:
        problems.append(f'{key}.max_per_img is {count}: write {key}.max_per_img = 100')
    if problems:
        raise UserError(
            'the graph of an exported detector has no counterpart of these settings:\n'
            + '\n'.join(f'  {problem}' for problem in problems)
        )
    return Limits(
        score=float(test_cfg.get('score_thr', 0)),
        nms_iou=None if nms is None else float(settings['iou_threshold']),
        class_agnostic=bool(settings.get('class_agnostic', False)),
        max_per_image=int(count),  # type: ignore[arg-type]
    )
