"""mmdet's CocoMetric, faster where that can be, and with figures of each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from mmdet.evaluation.metrics import coco_metric
from mmdet.evaluation.metrics.coco_metric import CocoMetric
from mmengine.logging import print_log
from pycocotools.cocoeval import COCOeval

from ..errors import ArgumentError
from ..registry import METRICS
from .class_table import ClassFigures, figures_of, nothing_found

_EVALUATORS = ('pycocotools', 'faster_coco_eval')
# Of mmdet's, in whose place others are put while it evaluates.
_NAMES = ('COCOeval', 'COCOevalMP')


@METRICS.register_module()
class ClasswiseCocoMetric(CocoMetric):
    """CocoMetric that keeps what it measured of each class.

    The values are those of CocoMetric. Where ``faster_coco_eval`` is installed, it
    evaluates, which takes a fraction of the time: before rounding its precisions differ
    by 2e-16 at most, since pycocotools adds so much to a divisor. ``mmdet-backbones
    train`` and ``test`` put this metric in the place of CocoMetric by themselves.

    Args:
        *args: As of CocoMetric.
        evaluator: ``'pycocotools'`` or ``'faster_coco_eval'``; the second if left out
            and it is installed. ``use_mp_eval=True`` asks for pycocotools in several
            processes and is followed.
        **settings: As of CocoMetric.

    Attributes:
        class_figures: By what was measured, ``'bbox'`` or ``'segm'``; in the main
            process, after an evaluation.
    """

    def __init__(
        self, *args: Any, evaluator: str | None = None, **settings: Any
    ) -> None:
        if evaluator not in (None, *_EVALUATORS):
            raise ArgumentError(
                f'evaluator is {" or ".join(map(repr, _EVALUATORS))}, got {evaluator!r}'
            )
        installed = find_spec('faster_coco_eval') is not None
        if evaluator == 'faster_coco_eval' and not installed:
            raise ArgumentError(
                "evaluator='faster_coco_eval' is not installed: write\n"
                '  pip install faster-coco-eval'
            )
        super().__init__(*args, **settings)
        self.class_figures: dict[str, list[ClassFigures]] = {}
        usual = self.use_mp_eval or evaluator == 'pycocotools'
        self._faster = installed and not usual

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate, and keep the figures of the classes."""
        with _evaluators(self._evaluator) as made:
            metrics = super().compute_metrics(results)
        self.class_figures = {
            evaluator.params.iouType: figures_of(evaluator)
            for evaluator in made
            if evaluator.params.useCats and len(evaluator.eval)
        }
        if not made and not self.format_only:
            # mmdet stops before it evaluates, and gives no metric.
            self.class_figures = {
                kind: nothing_found(self._coco_api, self.cat_ids, self.img_ids)
                for kind in self.metrics
                if kind in ('bbox', 'segm')
            }
        return metrics

    def _evaluator(self, usual: Any, truth: Any, found: Any, kind: str) -> Any:
        if not (self._faster and _numbered(truth)):
            print_log(f'{kind} is evaluated by pycocotools', 'current')
            return usual(truth, found, kind)
        name = f'faster-coco-eval {version("faster-coco-eval")}'
        print_log(f'{kind} is evaluated by {name}', 'current')
        return _faster_evaluator()(truth, found, kind, print_function=print)


@cache
def _faster_evaluator() -> Any:
    from faster_coco_eval import COCOeval_faster

    class FasterEvaluator(COCOeval_faster):
        """Matches and accumulates in C++, and says the same as pycocotools.

        Its own summary is of the largest number of detections, where pycocotools' has
        an AP of 100.
        """

        summarize = COCOeval.summarize

    return FasterEvaluator


def _numbered(truth: Any) -> bool:
    """Tell whether ids are numbers; the faster evaluator takes no text."""
    ids = (truth.imgs, truth.cats, truth.anns)
    return all(type(number) is int for of_kind in ids for number in of_kind)


@contextmanager
def _evaluators(choose: Callable[..., Any]) -> Iterator[list[Any]]:
    """Have mmdet's module make other evaluators, which are listed."""
    usual = {name: getattr(coco_metric, name) for name in _NAMES}
    made: list[Any] = []

    def maker(name: str) -> Callable[..., Any]:
        def make(*args: Any) -> Any:
            made.append(choose(usual[name], *args))
            return made[-1]

        return make

    try:
        for name in _NAMES:
            setattr(coco_metric, name, maker(name))
        yield made
    finally:
        for name, evaluator in usual.items():
            setattr(coco_metric, name, evaluator)
