"""Suppression of fixed shape, against mmcv's and torchvision's."""

import pytest
import torch
from mmcv.ops import batched_nms
from torchvision.ops import batched_nms as torchvision_nms

from mmdet_backbones.deploy.decoding import Decoder, Limits
from mmdet_backbones.deploy.suppression import suppress, top_candidates


def random_boxes(images: int, count: int, classes: int):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(images, count, 2, generator=generator) * 200 - 20
    sides = torch.rand(images, count, 2, generator=generator) * 60 + 1
    scores = torch.rand(images, count, generator=generator)
    labels = torch.randint(classes, (images, count), generator=generator)
    return torch.cat((corners, corners + sides), -1), scores, labels


@pytest.mark.parametrize('class_agnostic', [False, True])
def test_boxes_that_stay_are_those_of_mmcv(class_agnostic):
    boxes, scores, labels = random_boxes(2, 300, 7)
    found = suppress(boxes, scores, labels, 0.5, 400, class_agnostic, 7)
    for number in range(2):
        given = dict(type='nms', iou_threshold=0.5, class_agnostic=class_agnostic)
        _, kept = batched_nms(boxes[number], scores[number], labels[number], given)
        count = len(kept)
        assert 20 < count < 300
        assert torch.equal(found[0][number, :count], boxes[number][kept])
        assert torch.equal(found[2][number, :count], labels[number][kept])
        assert (found[1][number, count:] == 0).all()
        assert (found[2][number, count:] == -1).all()


def test_what_has_no_score_is_not_in_the_way():
    boxes, scores, labels = random_boxes(1, 300, 3)
    scores = torch.where(scores > 0.5, scores, torch.full_like(scores, -1))
    there = scores[0] > 0
    kept = torchvision_nms(boxes[0][there], scores[0][there], labels[0][there], 0.4)
    found = suppress(boxes, scores, labels, 0.4, 50, classes=3)
    assert torch.equal(found[0][0, :20], boxes[0][there][kept][:20])


def test_the_best_are_taken_over_the_threshold_alone():
    scores = torch.tensor([[[0.1, 0.9], [0.5, 0.2], [0.3, 0.3]]])
    best, places, labels = top_candidates(scores, 0.25, 5)
    assert best.tolist()[0][:4] == pytest.approx([0.9, 0.5, 0.3, 0.3])
    assert best[0, 4] == -1
    assert places.tolist()[0][:2] == [0, 1]
    assert labels.tolist()[0][:2] == [1, 0]


def test_what_is_far_behind_the_best_changes_nothing():
    boxes, scores, labels = random_boxes(2, 6000, 7)
    # Equal ones may stand in any order.
    given = boxes, (scores.argsort().argsort() + 1) / 6000, labels
    expected = suppress(*given, 0.5, 100, classes=7)
    limits = Limits(score=0.0, nms_iou=0.5, class_agnostic=False, max_per_image=100)
    found = Decoder(limits, 7).keep_best(*given)
    assert (found[1] > 0).all()
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
