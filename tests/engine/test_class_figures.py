"""What a test says of each class, by both evaluators; synthetic detections."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_detections import make
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from rich.console import Console

from mmdet_backbones.engine.class_table import (
    ClassFigures,
    class_figures,
    class_table,
    tell_classes,
    to_dict,
)
from mmdet_backbones.engine.coco_metric import ClasswiseCocoMetric
from mmdet_backbones.engine.launch import _measure_classes
from mmdet_backbones.errors import ArgumentError

FASTER = 'faster_coco_eval'


@pytest.fixture
def truth(tmp_path):
    return tmp_path / 'truth.json'


def measured(kind, truth, results, names, **settings):
    """Metrics of synthetic results, as mmdet computes them at the end of a test."""
    metric = kind(ann_file=str(truth), **settings)
    metric.dataset_meta = dict(classes=names)
    return metric.compute_metrics(copy.deepcopy(results)), metric


@pytest.mark.parametrize(
    ('seed', 'numbers'),
    [
        (0, (100, 300, 1000)),
        (1, (100, 300, 1000)),
        (1, (1, 10, 100)),
        (1, (2, 5, 100, 300)),
    ],
    ids=str,
)
def test_both_evaluators_say_what_mmdets_metric_says(truth, numbers, seed):
    pytest.importorskip(FASTER)
    # More than a hundred of one class in an image, which only some numbers count.
    results, names = make(truth, 12, 2, 260, seed, first=seed)
    settings = dict(
        metric=['bbox', 'proposal'], proposal_nums=numbers,
        metric_items=['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100',
                      'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000'],
    )  # fmt: skip
    usual, _ = measured(CocoMetric, truth, results, names, **settings)
    assert usual['bbox_mAP'] > 0.05
    figures = {}
    for evaluator in ('pycocotools', FASTER):
        found, metric = measured(
            ClasswiseCocoMetric, truth, results, names, evaluator=evaluator, **settings
        )
        assert found == usual
        figures[evaluator] = rows = metric.class_figures['bbox']
        for name, key in (('mAP', 'ap'), ('mAP_50', 'ap50'), ('mAP_75', 'ap75')):
            mean = np.mean([getattr(row, key) for row in rows])
            assert mean == pytest.approx(usual[f'bbox_{name}'], abs=0.0005 + 1e-9)
        crowded = numbers[-1] > 100
        assert all((row.ap_all > row.ap) == crowded for row in rows)
    for slow, fast in zip(*figures.values(), strict=True):
        assert (slow.name, slow.boxes, slow.recall) == (
            fast.name, fast.boxes, fast.recall
        )  # fmt: skip
        assert slow.ap == pytest.approx(fast.ap, abs=1e-15)


def test_masks_are_evaluated_alike(truth):
    pytest.importorskip(FASTER)
    results, names = make(truth, 12, masks=True)
    settings = dict(metric=['bbox', 'segm'])
    usual, _ = measured(CocoMetric, truth, results, names, **settings)
    found, metric = measured(ClasswiseCocoMetric, truth, results, names, **settings)
    assert found == usual
    assert found['segm_mAP'] > 0.01
    assert [*metric.class_figures] == ['bbox', 'segm']


def test_thresholds_of_ones_own(truth):
    pytest.importorskip(FASTER)
    results, names = make(truth)
    settings = dict(iou_thrs=np.array([0.3, 0.6, 0.75]))
    usual, _ = measured(CocoMetric, truth, results, names, **settings)
    found, metric = measured(ClasswiseCocoMetric, truth, results, names, **settings)
    assert found == usual
    row = metric.class_figures['bbox'][0]
    assert row.ap50 is None
    assert 0 < row.ap75 < row.ap


def test_the_figures_are_those_of_mmdets_table(truth):
    results, names = make(truth, classes=6)
    usual, _ = measured(CocoMetric, truth, results, names, classwise=True)
    _, metric = measured(ClasswiseCocoMetric, truth, results, names)
    rows = metric.class_figures['bbox']
    assert [row.name for row in rows] == list(names)
    for row in rows:
        assert round(row.ap_all, 3) == usual[f'{row.name}_precision']
    content = json.loads(truth.read_text())
    counted = [entry for entry in content['annotations'] if not entry['iscrowd']]
    assert 0 < len(counted) < len(content['annotations'])
    assert sum(row.boxes for row in rows) == len(counted)
    assert rows[2].images == len(
        {entry['image_id'] for entry in counted if entry['category_id'] == 11}
    )


def test_figures_have_their_names_whatever_the_order_of_the_file(truth):
    """mmdet's own table takes the order of the file, and pycocotools sorts numbers."""
    results, names = make(truth, classes=3)
    _, metric = measured(ClasswiseCocoMetric, truth, results, names)
    wanted = {row.name: row for row in metric.class_figures['bbox']}
    content = json.loads(truth.read_text())
    content['categories'].reverse()
    truth.write_text(json.dumps(content))
    turned = [(gt, dict(result, labels=2 - result['labels'])) for gt, result in results]
    _, metric = measured(ClasswiseCocoMetric, truth, turned, names)
    assert {row.name: row for row in metric.class_figures['bbox']} == wanted


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmdet_backbones.engine.coco_metric.print_log',
        lambda text, *_: lines.append(text),
    )
    return lines


def test_one_line_says_which_evaluator_ran(truth, said):
    pytest.importorskip(FASTER)
    results, names = make(truth, 5)
    measured(ClasswiseCocoMetric, truth, results, names)
    measured(ClasswiseCocoMetric, truth, results, names, evaluator='pycocotools')
    assert len(said) == 2
    assert said[0].startswith('bbox is evaluated by faster-coco-eval 1.')
    assert said[1] == 'bbox is evaluated by pycocotools'


def test_ids_that_are_text_are_left_to_pycocotools(truth, said):
    results, names = make(truth, 5)
    content = json.loads(truth.read_text())
    for entry in content['images']:
        entry['id'] = f'{entry["id"]:06d}'
    for entry in content['annotations']:
        entry['image_id'] = f'{entry["image_id"]:06d}'
    truth.write_text(json.dumps(content))
    for gt, result in results:
        gt['img_id'] = result['img_id'] = f'{result["img_id"]:06d}'
    found, metric = measured(ClasswiseCocoMetric, truth, results, names)
    assert said == ['bbox is evaluated by pycocotools']
    assert found == measured(CocoMetric, truth, results, names)[0]
    assert sum(row.images for row in metric.class_figures['bbox']) > 0


def test_without_the_faster_one_the_usual_evaluates(truth, said, monkeypatch):
    monkeypatch.setattr(
        'mmdet_backbones.engine.coco_metric.find_spec', lambda name: None
    )
    results, names = make(truth, 5)
    measured(ClasswiseCocoMetric, truth, results, names)
    assert said == ['bbox is evaluated by pycocotools']
    with pytest.raises(ArgumentError, match='pip install faster-coco-eval'):
        ClasswiseCocoMetric(evaluator=FASTER)


def test_an_evaluator_that_is_none(truth):
    with pytest.raises(ArgumentError, match="'pycocotools' or 'faster_coco_eval', got"):
        ClasswiseCocoMetric(evaluator='detectron2')


def test_mmdets_own_metric_stays_what_it_is(truth):
    before = coco_metric.COCOeval
    results, names = make(truth, 5)
    metric = ClasswiseCocoMetric(ann_file=str(truth), metric='segm')
    metric.dataset_meta = dict(classes=names)
    with pytest.raises(KeyError, match='segm is not in results'):
        metric.compute_metrics(results)
    assert coco_metric.COCOeval is before
    assert metric.class_figures == {}


def test_nothing_found_at_all(truth):
    results, names = make(truth, 5, random_ones=0)
    for _, result in results:
        for key in ('bboxes', 'labels', 'scores'):
            result[key] = result[key][:0]
    content = json.loads(truth.read_text())
    content['categories'].append(dict(id=99, name='never'))
    truth.write_text(json.dumps(content))
    # mmdet logs as an error that there is nothing.
    MMLogger.get_instance('nothing found')
    found, metric = measured(ClasswiseCocoMetric, truth, results, (*names, 'never'))
    assert found == {}
    *told, never = metric.class_figures['bbox']
    assert [(row.ap, row.ap50, row.recall) for row in told] == [(0, 0, 0)] * 4
    assert all(row.boxes > 0 for row in told)
    assert (never.name, never.ap, never.boxes) == ('never', None, 0)


@pytest.mark.parametrize(
    'evaluator',
    [
        dict(type='CocoMetric', metric='bbox'),
        [dict(type='mmdet.CocoMetric'), dict(type='VOCMetric')],
        dict(type='MultiDatasetsEvaluator', metrics=[dict(type='CocoMetric')]),
        dict(type=CocoMetric),
    ],
    ids=['one', 'list', 'of several data sets', 'a class'],
)
def test_ours_comes_into_the_place_of_mmdets(evaluator):
    others = dict(test_evaluator=dict(type='mine'), default_scope='mmdet')
    cfg = Config(dict(val_evaluator=evaluator, **others))
    _measure_classes(cfg)
    text = str(cfg.val_evaluator)
    assert text.count('mmdet_backbones.ClasswiseCocoMetric') == 1
    assert "CocoMetric'" not in text.replace('ClasswiseCocoMetric', '')
    assert cfg.test_evaluator == dict(type='mine')
    poses = Config(dict(val_evaluator=dict(type='CocoMetric'), default_scope='mmpose'))
    for other in (poses, Config(dict(val_evaluator=None))):
        _measure_classes(other)
    assert poses.val_evaluator.type == 'CocoMetric'


def test_the_registry_builds_it_from_its_name(truth):
    make(truth, 3)
    kind = 'mmdet_backbones.ClasswiseCocoMetric'
    evaluator = Evaluator(dict(type=kind, ann_file=str(truth), classwise=True))
    assert isinstance(evaluator.metrics[0], ClasswiseCocoMetric)
    assert evaluator.metrics[0].default_prefix == 'coco'


def rows(count, unmeasured=0):
    made = [
        ClassFigures(f'class {i}', i / count, i / count, None, i / count, 0.5, i, 2 * i)
        for i in range(count)
    ]
    empty = ClassFigures('none', *[None] * 5, 0, 0)
    return made + [empty] * unmeasured


def drawn(figures, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(class_table(figures, 'bbox', 'work/classes.json'))
    return captured.get()


@pytest.mark.parametrize('width', [80, 60])
def test_the_table_fits_and_has_the_worst_last(width):
    figures = rows(3, 8)
    long = 'a name of many words ' * 9
    figures[0] = ClassFigures(long, *[0.5] * 5, 12345, 1234567)
    text = drawn(figures, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.index('class 2') < text.index('a name of') < text.index('class 1')
    assert 'none, none, none, none, none and 3 more' in ' '.join(text.split())
    assert 'work/classes.json' not in text


def test_the_ap_of_all_boxes_is_shown_where_it_is_another():
    assert 'AP all' not in drawn(rows(3))
    crowd = [replace(row, ap_all=0.9, boxes=12345) for row in rows(3)]
    text = drawn(crowd, 60)
    assert 'class 0' in text
    assert text.count('0.900') == text.count('12345') == 3
    assert 'AP, as bbox_mAP, is of the 100 best' in text
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize('count', [40, 41, 1203])
def test_of_many_classes_the_best_and_the_worst_are_shown(count):
    text = drawn(rows(count))
    lines = [line for line in text.splitlines() if 'class ' in line]
    shown = [line for line in lines if '-' in line]
    assert len(shown) == 40
    assert f'class {count - 1} ' in shown[0]
    assert 'class 0 ' in shown[-1]
    assert ('all 1203 classes: work/classes.json' in text) == (count == 1203)
    assert (f'... {count - 40} classes' in text) == (count > 40)


class AfterTest:
    """What a Runner has after its test."""

    def __init__(self, folder, metric):
        self.log_dir = str(folder)
        self.test_evaluator = Evaluator([metric])


def test_all_figures_are_written(tmp_path, truth, capsys):
    results, names = make(truth, 5, classes=3)
    content = json.loads(truth.read_text())
    content['categories'].append(dict(id=99, name='never'))
    truth.write_text(json.dumps(content))
    _, metric = measured(ClasswiseCocoMetric, truth, results, (*names, 'never'))
    runner = AfterTest(tmp_path, metric)
    capsys.readouterr()
    tell_classes(runner)
    assert 'classes of which there is no box: never' in capsys.readouterr().out
    written = json.loads((tmp_path / 'classes.json').read_text())
    assert written == to_dict(class_figures(runner))
    assert [row['name'] for row in written['bbox']] == [*names, 'never']
    assert written['bbox'][-1]['ap'] is None
    assert all(math.isfinite(row['ap']) for row in written['bbox'][:-1])


def test_a_metric_without_classes_tells_nothing(tmp_path, truth, capsys):
    make(truth, 3)
    tell_classes(AfterTest(tmp_path, CocoMetric(ann_file=str(truth))))
    assert capsys.readouterr().out.count('bbox') == 0
    assert not (tmp_path / 'classes.json').exists()
