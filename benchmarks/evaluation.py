"""Time of an evaluation: pycocotools against faster-coco-eval.

    python benchmarks/evaluation.py [--images 1000] [--rounds 3] [-o evaluation.md]

Synthetic boxes of 80 classes, about 100 detections in each image. Both evaluators take
turns in one process, on one thread, and the metrics must be the same.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'helpers'))

from made_detections import make

from mmdet_backbones.engine.coco_metric import ClasswiseCocoMetric

EVALUATORS = ('pycocotools', 'faster_coco_eval')
CLASSES, DETECTIONS = 80, 100
STEPS = ('evaluate', 'accumulate', 'summarize')


@contextlib.contextmanager
def clocked(times: list[float]):
    """Add up the time inside the evaluators that the metric makes."""
    usual = ClasswiseCocoMetric._evaluator

    def evaluator(*args):
        made = usual(*args)
        for name in STEPS:
            step = getattr(made, name)

            def run(step=step):
                start = time.perf_counter()
                step()
                times[-1] += time.perf_counter() - start

            setattr(made, name, run)
        return made

    ClasswiseCocoMetric._evaluator = evaluator
    try:
        yield
    finally:
        ClasswiseCocoMetric._evaluator = usual


def measure(truth: Path, images: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    results, names = make(truth, images, CLASSES, DETECTIONS - 10)
    times = {name: dict(evaluator=[], metric=[]) for name in EVALUATORS}
    metrics = []
    for _ in range(rounds):
        for name in EVALUATORS:
            metric = ClasswiseCocoMetric(ann_file=str(truth), evaluator=name)
            metric.dataset_meta = dict(classes=names)
            given = copy.deepcopy(results)
            times[name]['evaluator'].append(0.0)
            with clocked(times[name]['evaluator']):
                start = time.perf_counter()
                metrics.append(metric.compute_metrics(given))
                times[name]['metric'].append(time.perf_counter() - start)
    assert all(found == metrics[0] for found in metrics), metrics
    found = sum(len(result['scores']) for _, result in results)
    print(f'{found / images:.0f} detections an image, {metrics[0]}', file=sys.stderr)
    return times


def report(times: dict[str, dict[str, list[float]]], images: int, rounds: int) -> str:
    lines = [
        '# Evaluation',
        '',
        f'{images} synthetic images, {CLASSES} classes, about {DETECTIONS} detections '
        f'in each; one thread, medians of {rounds} rounds in turn. faster-coco-eval '
        f'{version("faster-coco-eval")}, pycocotools {version("pycocotools")}, Python '
        f'{platform.python_version()}. The metrics are the same. Written by '
        '`benchmarks/evaluation.py`.',
        '',
        '| what | pycocotools, s | faster-coco-eval, s | ratio |',
        '|---|---|---|---|',
    ]
    names = {
        'evaluator': 'evaluate, accumulate and summarize',
        'metric': 'all of compute_metrics, with files and figures of classes',
    }
    for key, name in names.items():
        slow, fast = (times[evaluator][key] for evaluator in EVALUATORS)
        ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
        lines.append(
            f'| {name} | {statistics.median(slow):.2f} | {statistics.median(fast):.2f} '
            f'| {ratio:.1f} |'
        )
    return '\n'.join([*lines, ''])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        times = measure(Path(folder, 'truth.json'), args.images, args.rounds)
    text = report(times, args.images, args.rounds)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
