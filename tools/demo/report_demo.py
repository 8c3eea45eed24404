"""Write metrics, curves and pictures of a finished demo training, and sum it up."""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.files import write_atomically
from mmdet_backbones.runs.drawing import LabelledBox, draw_beside
from mmdet_backbones.runs.logs import read_log

_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
_ZOOM = 2


@dataclass
class History:
    """Training and validation over all runs in one work directory.

    Args:
        loss: Iteration and loss.
        validation: Epoch, AP and AP50.
    """

    loss: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What ``write_report`` found and wrote.

    Args:
        metrics: COCO metrics by name, between 0 and 1; None where no object of
            that size exists.
        timings: Seconds that each part took.
        files: Where to look, by what is to be seen there.
    """

    metrics: dict[str, float | None]
    timings: dict[str, float]
    files: dict[str, Path]


def write_report(
    work_dir: Path,
    ann_file: Path,
    img_dir: Path,
    results_json: Path,
    timings: Mapping[str, float],
    score: float = 0.3,
) -> Report:
    """Write metrics, curves and pictures of a finished training.

    Args:
        work_dir: Work directory of the training, with its logs; gets
            ``metrics.json``, ``curves.png`` and ``detections/``.
        ann_file: COCO JSON of the validation images.
        img_dir: Folder of these images.
        results_json: Detections in COCO's result format, as mmdet's ``CocoMetric``
            writes them to ``<outfile_prefix>.bbox.json``.
        timings: Seconds that each part took, kept in ``metrics.json``.
        score: Lowest score of a detection that is drawn.

    Returns:
        Numbers and places.

    Raises:
        FileNotFoundError: If an input, or the log of a training, is missing.
        ValueError: If the detections are not of these images.
        OSError: If a file cannot be written.
    """
    truth = _load_truth(ann_file)
    detections = json.loads(results_json.read_text())
    history = read_history(work_dir)
    metrics = coco_metrics(truth, detections)
    files = {
        'metrics': work_dir / 'metrics.json',
        'curves': work_dir / 'curves.png',
        'detections beside the truth': work_dir / 'detections',
    }
    content = {
        **metrics,
        'images': len(truth.imgs),
        'boxes': len(truth.anns),
        'seconds': dict(timings),
    }
    write_atomically(files['metrics'], json.dumps(content, indent=2))
    write_atomically(files['curves'], plot_curves(history))
    for name, picture in draw_detections(truth, detections, img_dir, score).items():
        write_atomically(work_dir / 'detections' / name, _png_of(picture))
    return Report(metrics, dict(timings), files)


def coco_metrics(truth: COCO, detections: list[dict]) -> dict[str, float | None]:
    """Score detections as COCO does, with the limits that mmdet sets.

    Args:
        truth: The annotated images.
        detections: Entries with ``image_id``, ``category_id``, ``bbox``, ``score``.

    Returns:
        AP, AP50, AP75 and AP of small, medium and large objects; None where there
        are no objects of that size.

    Raises:
        ValueError: If a detection is of an image that ``truth`` does not have.
    """
    strangers = {entry['image_id'] for entry in detections} - set(truth.imgs)
    if strangers:
        raise ValueError(
            f'the detections name image {min(strangers)}, the annotations have '
            f'{len(truth.imgs)} images and not that one: test on the same data set'
        )
    if not detections:
        return dict.fromkeys(_METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(detections)
        scoring = COCOeval(truth, found, 'bbox')
        scoring.params.maxDets = [100, 300, 1000]
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    values = [None if v < 0 else round(float(v), 4) for v in scoring.stats]
    return dict(zip(_METRICS, values, strict=False))


def read_history(work_dir: Path) -> History:
    """Read the logs of all runs in a work directory, as one training.

    Args:
        work_dir: Folder with a folder per run, as mmengine makes them.

    Returns:
        The joint history.

    Raises:
        FileNotFoundError: If no run logged a loss.
    """
    log = read_log(work_dir)
    if not log.steps:
        raise FileNotFoundError(
            f'{work_dir} holds no log of a training (*/vis_data/scalars.json): '
            'train first'
        )
    return History(
        [(entry['step'], entry['loss']) for entry in log.steps],
        [
            (v.step, v.metrics['coco/bbox_mAP'], v.metrics['coco/bbox_mAP_50'])
            for v in log.validations
            if 'coco/bbox_mAP' in v.metrics
        ],
    )


def plot_curves(history: History) -> bytes:
    """Draw the loss over iterations and AP and AP50 over epochs.

    Args:
        history: What to draw.

    Returns:
        A PNG.
    """
    # Figure without pyplot: no global state, no window, no other backend's turn.
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*history.loss, strict=True), linewidth=1)
    left.set(xlabel='iteration', ylabel='loss', title='training', ylim=(0, None))
    if history.validation:
        epochs, ap, ap50 = zip(*history.validation, strict=True)
        right.plot(epochs, ap50, marker='o', label=f'AP50, best {max(ap50):.3f}')
        right.plot(epochs, ap, marker='o', label=f'AP, best {max(ap):.3f}')
        right.legend()
    right.set(xlabel='epoch', title='validation', ylim=(0, None))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=120)
    return buffer.getvalue()


def draw_detections(
    truth: COCO, detections: list[dict], img_dir: Path, score: float
) -> dict[str, Image.Image]:
    """Draw every image twice: left with the truth, right with what was found.

    Args:
        truth: The annotated images.
        detections: Entries with ``image_id``, ``bbox``, ``score``.
        img_dir: Folder of the images.
        score: Lowest score of a detection that is drawn.

    Returns:
        Picture by file name.

    Raises:
        FileNotFoundError: If an image is missing.
    """
    pictures = {}
    for image_id, info in truth.imgs.items():
        with Image.open(img_dir / info['file_name']) as opened:
            image = opened.convert('RGB')
        known = truth.imgToAnns[image_id]
        found = [
            entry
            for entry in detections
            if entry['image_id'] == image_id and entry['score'] >= score
        ]
        pictures[f'{Path(info["file_name"]).stem}.png'] = draw_beside(
            image,
            [_box(entry) for entry in known],
            [_box(entry) for entry in found],
            (
                f'truth: {len(known)}',
                f'found with score {score:g} or more: {len(found)}',
            ),
            _ZOOM,
        )
    return pictures


def _box(entry: dict) -> LabelledBox:
    x, y, w, h = entry['bbox']
    score = entry.get('score')
    text = '' if score is None else f'{score:.2f}'
    return LabelledBox((x, y, x + w, y + h), text, 1.0 if score is None else score)


def _load_truth(ann_file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(ann_file))


def _png_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG')
    return buffer.getvalue()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work directory of the training')
    parser.add_argument('--results', type=Path, help='default: WORK_DIR/test.bbox.json')
    parser.add_argument('--timings', type=Path, help='default: WORK_DIR/timings.json')
    parser.add_argument('--ann', type=Path, default=Path('data/trees/val.json'))
    parser.add_argument('--images', type=Path, default=Path('data/trees/val'))
    parser.add_argument('--score', type=float, default=0.3, help='lowest score drawn')
    return parser.parse_args()


def show(report: Report) -> None:
    table = Table('what', title='demo', min_width=50)
    table.add_column('result', overflow='fold')
    for name in ('AP', 'AP50'):
        table.add_row(name, f'{report.metrics[name]:.3f}')
    table.add_section()
    for part, seconds in report.timings.items():
        table.add_row(part, f'{seconds:.0f} s')
    table.add_row('all', f'{sum(report.timings.values()):.0f} s')
    table.add_section()
    for what, path in report.files.items():
        table.add_row(what, str(path))
    Console().print(table)


def main() -> int:
    args = parse_args()
    results = args.results or args.work_dir / 'test.bbox.json'
    timings = args.timings or args.work_dir / 'timings.json'
    try:
        seconds = json.loads(timings.read_text()) if timings.exists() else {}
        report = write_report(
            args.work_dir, args.ann, args.images, results, seconds, args.score
        )
    except (ValueError, OSError) as error:
        print(f'report_demo: {error}', file=sys.stderr)
        return 1
    show(report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
