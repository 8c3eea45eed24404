"""The best and the worst images of a validation: judged, chosen and drawn."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from dist_runs import make_squares
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_backbones.registry import HOOKS
from mmdet_backbones.runs import drawing, examples


def truth(boxes, labels, ignored=()):
    return dict(
        bboxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        bboxes_ignore=np.array([box for box, _ in ignored], np.float32).reshape(-1, 4),
        labels_ignore=np.array([label for _, label in ignored], np.int64),
    )


def found(boxes, labels, scores):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


A, B, C = [0, 0, 20, 20], [40, 40, 80, 70], [5, 50, 30, 90]


@pytest.mark.parametrize(
    ('known', 'detected', 'score'),
    [
        (truth([A, B], [0, 0]), found([A, B], [0, 0], [0.9, 0.8]), 1.0),
        (truth([A, B], [0, 0]), found([A], [0], [0.9]), 0.5),
        # A surer mistake costs half of the precision of what follows.
        (truth([A], [0]), found([B, A], [0, 0], [0.9, 0.8]), 0.5),
        (truth([A], [7]), found([A], [3], [0.9]), 0.0),
        # The mean over the classes that are there; class 3 is not.
        (truth([A, B], [7, 9]), found([A, C], [7, 3], [0.9, 0.9]), 0.5),
        (truth([A], [0]), found([], [], []), 0.0),
        # What is to be ignored is neither right nor wrong.
        (truth([A], [7], [(B, 7), (C, 2)]), found([B, A], [7, 7], [0.9, 0.8]), 1.0),
    ],
)
def test_an_image_is_judged_by_its_own_ap(known, detected, score):
    assert examples.judge('a.png', known, detected).score == pytest.approx(score)


@pytest.fixture
def dataset(tmp_path):
    """Six synthetic images of 128 x 96 with two squares each."""
    root = make_squares(tmp_path / 'squares', train=1, val=6)
    return CocoDataset(
        ann_file='val.json',
        data_root=str(root),
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=('square',)),
        test_mode=True,
        pipeline=[],
    )


class _Run:
    """What the hook asks of a Runner."""

    _resume = False

    def __init__(self, dataset, work_dir, logger=None):
        self.val_dataloader = type('Loader', (), dict(dataset=dataset))
        self.work_dir = str(work_dir)
        self.logger = logger


def validate(hook, run, dataset, shares, value):
    """Find a share of the first box's width in each image; 0 finds nothing."""
    hook.before_val_epoch(run)
    for index, share in enumerate(shares):
        info = dataset.get_data_info(index)
        boxes = [instance['bbox'] for instance in info['instances']]
        if share < 1:
            boxes = boxes[: round(2 * share)]
        sample = DetDataSample(metainfo=dict(img_path=info['img_path']))
        sample.pred_instances = found(boxes, [0] * len(boxes), [0.9] * len(boxes))
        hook.after_val_iter(run, index, outputs=[sample])
    hook.after_val_epoch(run, {'coco/bbox_mAP': value})


def test_the_best_and_the_worst_are_drawn(tmp_path, dataset):
    hook = HOOKS.build(dict(type='BestAndWorstHook', count=2))
    run = _Run(dataset, tmp_path)
    validate(hook, run, dataset, [0, 1, 0.5, 1, 0.5, 0], 0.4)
    names = [e.path.rpartition('/')[2] for e in hook._first(hook._top, best=True)]
    assert names == ['2.png', '4.png']
    names = [e.path.rpartition('/')[2] for e in hook._first(hook._bottom, best=False)]
    assert names == ['1.png', '6.png']
    picture = Image.open(tmp_path / hook.file_name)
    # Four rows of two pictures that are 640 wide.
    assert picture.width == 2 * 640 + 12
    assert picture.height == 4 * (480 + 30) + 3 * 12
    # Two green boxes beside nothing in the third row, the worse of two.
    row = np.asarray(picture.convert('RGB'))[2 * (510 + 12) :][:510].astype(int)
    green = (row[..., 1] > 240) & (row[..., 0] < 120)
    assert green[:, :640].sum() > 500
    orange = (row[..., 0] > 240) & (row[..., 2] < 90)
    assert not orange.any()


def test_the_picture_is_of_the_best_validation(tmp_path, dataset):
    hook = examples.BestAndWorstHook(count=1)
    run = _Run(dataset, tmp_path)
    path = tmp_path / hook.file_name
    validate(hook, run, dataset, [1] * 6, 0.4)
    first = path.read_bytes()
    validate(hook, run, dataset, [0] * 6, 0.3)
    assert path.read_bytes() == first
    validate(hook, run, dataset, [0] * 6, 0.5)
    assert path.read_bytes() != first


def test_a_resumed_run_knows_what_was_reached(tmp_path, dataset):
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    lines = [dict(step=1, epoch=1, loss=1.0), {'step': 1, 'coco/bbox_mAP': 0.6}]
    log.write_text('\n'.join(json.dumps(line) for line in lines))
    hook = examples.BestAndWorstHook()
    run = _Run(dataset, tmp_path)
    run._resume = True
    hook.before_train(run)
    validate(hook, run, dataset, [1] * 6, 0.5)
    assert not (tmp_path / hook.file_name).exists()
    validate(hook, run, dataset, [1] * 6, 0.7)
    assert (tmp_path / hook.file_name).exists()


def test_a_validation_that_found_nothing_is_drawn_too(tmp_path, dataset):
    hook = examples.BestAndWorstHook(count=1)
    run = _Run(dataset, tmp_path)
    path = tmp_path / hook.file_name
    hook.before_val_epoch(run)
    info = dataset.get_data_info(0)
    sample = DetDataSample(metainfo=dict(img_path=info['img_path']))
    sample.pred_instances = found([], [], [])
    hook.after_val_iter(run, 0, outputs=[sample])
    hook.after_val_epoch(run, {})
    first = path.read_bytes()
    validate(hook, run, dataset, [0.5] * 6, 0.0)
    assert path.read_bytes() != first


def test_an_image_is_drawn_once(tmp_path, dataset):
    hook = examples.BestAndWorstHook(count=6)
    validate(hook, _Run(dataset, tmp_path), dataset, [0, 1, 1, 1, 1, 1], 0.4)
    content = (tmp_path / hook.file_name).read_bytes()
    assert Image.open(io.BytesIO(content)).height == 6 * (480 + 30) + 5 * 12


def test_a_picture_that_cannot_be_drawn_does_not_end_a_training(
    tmp_path, dataset, caplog
):
    hook = examples.BestAndWorstHook()
    run = _Run(dataset, tmp_path, logging.getLogger('run'))
    shown = dataset.get_data_info(0)['img_path']
    Path(shown).write_bytes(b'no image')
    validate(hook, run, dataset, [1] * 6, 0.4)
    assert not (tmp_path / hook.file_name).exists()
    assert f"best_and_worst.png is not drawn: '{shown}' cannot be read" in caplog.text


def test_boxes_may_be_arrays(tmp_path):
    """mmdet's OpenImages gives them so."""

    class Arrays(list):
        get_data_info = list.__getitem__

    box = dict(bbox=np.array(A, np.float32), bbox_label=2)
    hook = examples.BestAndWorstHook()
    hook.before_val_epoch(_Run(Arrays([dict(img_path='a', instances=[box])]), tmp_path))
    assert hook._truths['a']['bboxes'].tolist() == [A]


def test_data_without_boxes_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    hook = examples.BestAndWorstHook()
    hook.before_val_epoch(_Run([1, 2], tmp_path, logging.getLogger('run')))
    assert 'gives no image with boxes' in caplog.text


def test_wrong_arguments_are_told_together():
    with pytest.raises(ValueError, match=r'count must be.*0; score_thr must.*1\.5'):
        examples.BestAndWorstHook(count=0, score_thr=1.5)


BOXES = [
    drawing.LabelledBox((-20, -30, 60, 60), 'traffic light 0.93', 0.93),
    drawing.LabelledBox((250, 200, 330, 239), 'traffic light 0.91', 0.91),
    drawing.LabelledBox((300, 5, 319, 40), 'person 0.55', 0.55),
    drawing.LabelledBox((100, 100, 180, 180), 'person 0.72', 0.72),
    drawing.LabelledBox((104, 104, 180, 180), 'bicycle 0.71', 0.71),
]


def test_labels_stay_in_the_picture_and_beside_each_other():
    area = (0, 30, 320, 270)
    labels = [(box.corners, (6 * len(box.text), 12)) for box in BOXES]
    places = drawing.place_labels(labels, area)
    taken = [
        (x, y, x + width, y + height)
        for (x, y), (_, (width, height)) in zip(places, labels, strict=True)
    ]
    for x0, y0, x1, y1 in taken:
        assert area[0] < x0 < x1 < area[2]
        assert area[1] < y0 < y1 < area[3]
    for one in taken:
        assert [other for other in taken if drawing._overlap(one, other)] == [one]


def test_where_no_place_is_free_a_label_is_written_into_its_box():
    same = [((0, 0, 20, 20), (18, 18))] * 9
    assert drawing.place_labels(same, (0, 0, 24, 24))[-1] == (3, 1)


@pytest.mark.parametrize(
    'text', ['best, 2 boxes: ' + 'long_name_' * 9 + '.jpg', '', 'W']
)
def test_captions_are_broken_into_lines(text):
    lines = drawing.wrapped(text, len, 40)
    assert max(map(len, lines)) <= 40
    assert ''.join(lines).replace(' ', '') == text.replace(' ', '')
    assert drawing.wrapped('two words', len, 9) == ['two words']


@pytest.mark.parametrize('size', [(320, 240), (30, 600), (600, 30)])
def test_nothing_is_written_over_the_edge_of_a_picture(size):
    image = Image.new('RGB', size, (90, 90, 90))
    captions = ('worst, 12 boxes: ' + 'a_long_name_' * 9, '5 found')
    zoom = 640 / max(size)
    both = drawing.draw_beside(image, BOXES, BOXES, captions, zoom)
    width = max(round(size[0] * zoom), 240)
    above = both.height - round(size[1] * zoom)
    assert both.width == 2 * width + 12
    pixels = np.asarray(both.convert('RGB')).astype(int)
    # The caption ends before the gap, and boxes end before the caption.
    assert (pixels[:above, width - 3 : width + 12] == 255).all()
    coloured = abs(pixels[..., 0] - pixels[..., 1]) > 20
    assert coloured[above:].any()
    assert not coloured[:above].any()
    assert both.height - above == round(size[1] * zoom)
