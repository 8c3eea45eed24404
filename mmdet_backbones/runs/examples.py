"""Pictures of the images that a detector does best and worst on."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from ..files import write_atomically
from ..registry import HOOKS
from .drawing import LabelledBox, draw_beside, stack
from .logs import read_log, usual_metric

_SIDE = 640


@dataclass(frozen=True)
class Example:
    """One image of a validation.

    Attributes:
        path: The image.
        score: Mean over the classes in the image of AP at an IoU of 0.5.
        truth: Annotated boxes of shape (n, 4), in pixels, and their classes.
        found: Detections of shape (m, 5), the score last, and their classes.
    """

    path: str
    score: float
    truth: tuple[np.ndarray, np.ndarray]
    found: tuple[np.ndarray, np.ndarray]


@HOOKS.register_module()
class BestAndWorstHook(Hook):
    """Draw detections beside the truth for the best and the worst images.

    Each image of a validation is judged by its own AP at an IoU of 0.5, which mmdet's
    ``eval_map`` computes; images without boxes have none and are left out. The picture
    is of the validation with the best AP so far, as is the checkpoint that
    ``save_best`` keeps. The command ``train`` adds this hook by itself.

    Args:
        count: Images of each kind.
        score_thr: Lowest score of a detection that is drawn.

    Raises:
        ValueError: If an argument is out of range.
    """

    file_name = 'best_and_worst.png'

    def __init__(self, count: int = 3, score_thr: float = 0.3) -> None:
        problems = []
        if count < 1:
            problems.append(f'count must be 1 or more, got {count}')
        if not 0 <= score_thr <= 1:
            problems.append(f'score_thr must lie between 0 and 1, got {score_thr}')
        if problems:
            raise ValueError('; '.join(problems))
        self.count = count
        self.score_thr = score_thr
        self._best = -math.inf
        self._truths: dict[str, dict[str, np.ndarray]] | None = None
        self._top: list[Example] = []
        self._bottom: list[Example] = []

    def before_train(self, runner: Runner) -> None:
        """Take over what the part of the training before a resume has reached."""
        log = read_log(Path(runner.work_dir)) if runner._resume else None
        metric = log.metric() if log is not None else None
        if log is not None and metric is not None:
            values = [value for _, value in log.series(metric, log.unit)]
            self._best = max(values, default=self._best)

    def before_val_epoch(self, runner: Runner) -> None:
        """Start with no images."""
        self._top, self._bottom = [], []
        if self._truths is None:
            self._truths = _read_truths(runner.val_dataloader.dataset)
            if not self._truths:
                runner.logger.info(
                    f'{self.file_name} is not drawn: the data set of the validation '
                    'gives no image with boxes'
                )

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Judge the images of a batch, and keep the best and the worst of all."""
        for sample in outputs or ():
            truth = (self._truths or {}).get(sample.get('img_path'))
            if truth is None or not hasattr(sample, 'pred_instances'):
                continue
            example = judge(sample.img_path, truth, sample.pred_instances)
            self._top = self._first([*self._top, example], best=True)
            self._bottom = self._first([*self._bottom, example], best=False)

    def after_val_epoch(
        self, runner: Runner, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Draw, if this validation is the best so far."""
        metric = usual_metric(metrics or {})
        # mmdet gives no metrics at all if nothing was found.
        value = (metrics or {})[metric] if metric else math.nextafter(0, -1)
        # Every process has judged its share of the images.
        top = [e for part in all_gather_object(self._top) for e in part]
        bottom = [e for part in all_gather_object(self._bottom) for e in part]
        if not value > self._best or not top or not is_main_process():
            return
        self._best = value
        buffer = io.BytesIO()
        try:
            picture = self._draw(
                self._first(top, best=True),
                self._first(bottom, best=False),
                runner.val_dataloader.dataset,
            )
            picture.save(buffer, 'PNG')
            write_atomically(Path(runner.work_dir) / self.file_name, buffer.getvalue())
        except OSError as error:
            # A picture is not worth a training.
            runner.logger.warning(f'{self.file_name} is not drawn: {error}')

    def _first(self, examples: list[Example], best: bool) -> list[Example]:
        def rank(example: Example) -> tuple[float, float]:
            # Of equally bad images the one with more to find is worse, of equally
            # good ones it is better.
            ap = -example.score if best else example.score
            return ap, -len(example.truth[0])

        # A distributed sampler hands some images to two processes.
        once = {example.path: example for example in examples}
        return sorted(once.values(), key=rank)[: self.count]

    def _draw(
        self, top: Sequence[Example], bottom: Sequence[Example], dataset: Any
    ) -> Image.Image:
        drawn = {example.path for example in top}
        kinds = [('best', example) for example in top]
        # With few images the same would be drawn twice.
        kinds += [('worst', e) for e in reversed(bottom) if e.path not in drawn]
        classes = dataset.metainfo.get('classes') or ()
        options = getattr(dataset, 'backend_args', None)
        return stack([self._row(kind, e, classes, options) for kind, e in kinds])

    def _row(
        self, kind: str, example: Example, classes: Sequence[str], options: Any
    ) -> Image.Image:
        pixels = mmcv.imread(example.path, backend='cv2', backend_args=options)
        if pixels is None:
            raise OSError(f"'{example.path}' cannot be read as an image")
        image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))

        def name(label: int) -> str:
            # With one class its name says nothing.
            return classes[label] if 1 < len(classes) > label else ''

        truth = [
            LabelledBox(tuple(box), name(label))
            for box, label in zip(*example.truth, strict=True)
        ]
        found = [
            LabelledBox(tuple(box), f'{name(label)} {score:.2f}'.strip(), score)
            for (*box, score), label in zip(*example.found, strict=True)
            if score >= self.score_thr
        ]
        captions = (
            f'{kind}, {len(truth)} boxes: {Path(example.path).name}',
            f'{len(found)} found with score {self.score_thr:g} or more, '
            f'AP50 {example.score:.2f}',
        )
        zoom = _SIDE / max(image.size)
        return draw_beside(image, truth, found, captions, zoom)


def judge(path: str, truth: Mapping[str, np.ndarray], found: Any) -> Example:
    """Score the detections of one image.

    Args:
        path: The image.
        truth: ``bboxes`` of shape (n, 4) and ``labels`` of shape (n,), and the same of
            boxes to ignore as ``bboxes_ignore`` and ``labels_ignore``.
        found: mmdet's ``pred_instances`` in pixels of the image.

    Returns:
        The image with its score.
    """
    from mmdet.evaluation import eval_map
    from mmdet.structures.bbox import get_box_tensor

    corners = get_box_tensor(found.bboxes).cpu().numpy()
    boxes = np.concatenate([corners, found.scores.cpu().numpy()[:, None]], axis=1)
    labels = found.labels.cpu().numpy()
    # eval_map visits each class, and a class that is not in the image has no AP.
    present = np.unique(truth['labels'])
    numbered = {
        key: np.searchsorted(present, values)
        for key, values in (
            ('labels', truth['labels']),
            ('labels_ignore', truth['labels_ignore']),
        )
    }
    of_present = np.isin(truth['labels_ignore'], present)
    annotation = dict(
        bboxes=truth['bboxes'],
        labels=numbered['labels'],
        bboxes_ignore=truth['bboxes_ignore'][of_present],
        labels_ignore=numbered['labels_ignore'][of_present],
    )
    score, _ = eval_map(
        [[boxes[labels == label] for label in present]],
        [annotation],
        logger='silent',
        nproc=1,
    )
    return Example(
        path, float(score), (truth['bboxes'], truth['labels']), (boxes, labels)
    )


def _read_truths(dataset: Any) -> dict[str, dict[str, np.ndarray]]:
    """Read the boxes of all images that have some, in pixels of the image file.

    The samples of a validation have them too, but in the size that the pipeline left.
    """
    truths = {}
    # Data sets that are not of mmengine's kind say nothing of their samples.
    for index in range(len(dataset) if hasattr(dataset, 'get_data_info') else 0):
        info = dataset.get_data_info(index)
        instances = [
            i
            for i in info.get('instances') or ()
            if len(i.get('bbox', ())) == 4 and 'bbox_label' in i
        ]
        kept = [i for i in instances if not i.get('ignore_flag')]
        if not kept or 'img_path' not in info:
            continue
        ignored = [i for i in instances if i.get('ignore_flag')]
        truths[info['img_path']] = dict(
            bboxes=_boxes(kept),
            labels=_labels(kept),
            bboxes_ignore=_boxes(ignored),
            labels_ignore=_labels(ignored),
        )
    return truths


def _boxes(instances: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([i['bbox'] for i in instances], np.float32).reshape(-1, 4)


def _labels(instances: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([i['bbox_label'] for i in instances], np.int64)
