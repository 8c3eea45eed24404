"""Anchors by sizes in pixels and aspect ratios, as detectron2 users set them."""

import math

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

SIZES = [[32], [64], [128], [256], [512]]
RATIOS = [0.5, 1.0, 2.0]
STRIDES = [4, 8, 16, 32, 64]


def build(sizes=SIZES, aspect_ratios=RATIOS, strides=STRIDES, **arguments):
    return TASK_UTILS.build(
        dict(
            type='mmdet_backbones.SizedAnchorGenerator',
            sizes=sizes,
            aspect_ratios=aspect_ratios,
            strides=strides,
            **arguments,
        )
    )


def published(sizes, ratios):
    """The formula that detectron2 documents, one anchor after the other."""
    anchors = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(anchors)


def test_anchors_follow_the_published_formula():
    sizes = [[32, 40.5], [64, 80]]
    ratios = [[0.5, 1, 2], [0.3, 1.5, 4]]
    generator = build(sizes, ratios, [8, 16])
    assert generator.num_base_priors == [6, 6]
    for level in range(2):
        expected = published(sizes[level], ratios[level])
        torch.testing.assert_close(generator.base_anchors[level], expected)
    left, top, right, bottom = generator.base_anchors[0][2].tolist()
    # Ratio 2 of the first size: higher than wide.
    assert (bottom - top) / (right - left) == pytest.approx(2)
    assert (bottom - top) * (right - left) == pytest.approx(32**2)


@pytest.mark.parametrize('sizes', [[32, 64], [[32, 64]], [[32, 64]] * 3])
@pytest.mark.parametrize('ratios', [RATIOS, [RATIOS], [RATIOS] * 3])
def test_one_list_holds_for_all_levels(sizes, ratios):
    generator = build(sizes, ratios, [8, 16, 32])
    for anchors in generator.base_anchors:
        torch.testing.assert_close(anchors, published([32, 64], RATIOS))


def test_the_anchors_of_mmdet_where_it_can_express_them():
    theirs = AnchorGenerator(
        strides=STRIDES, ratios=RATIOS, scales=[8.0, 10.0], scale_major=False
    )
    ours = build([[8 * s, 10 * s] for s in STRIDES])
    maps = [(13, 7), (7, 4), (4, 2), (2, 1), (1, 1)]
    for mine, other in zip(
        ours.grid_priors(maps, device='cpu'),
        theirs.grid_priors(maps, device='cpu'),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    assert ours.num_base_priors == theirs.num_base_priors
    flags = [g.valid_flags(maps, (50, 28), 'cpu') for g in (ours, theirs)]
    assert all(map(torch.equal, *flags))


def test_offset_is_a_share_of_the_stride():
    corner, middle = (build(offset=offset) for offset in (0.0, 0.5))
    maps = [(8, 6), (4, 3), (2, 2), (1, 1), (1, 1)]
    levels = zip(
        corner.grid_priors(maps, device='cpu'),
        middle.grid_priors(maps, device='cpu'),
        STRIDES,
        strict=True,
    )
    for first, second, stride in levels:
        torch.testing.assert_close(first + stride / 2, second)
    some = torch.tensor([0, 5, 40])
    sparse = middle.sparse_priors(some, maps[0], 0, device='cpu')
    assert torch.equal(sparse, middle.grid_priors(maps, device='cpu')[0][some])


def test_strides_that_differ_along_the_sides():
    anchors = build([[32]], strides=[(8, 16)], offset=0.5).grid_priors(
        [(2, 2)], device='cpu'
    )
    centres = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2
    expected = torch.tensor([[4.0, 8], [12, 8], [4, 24], [12, 24]])
    torch.testing.assert_close(centres[::3], expected)


def test_every_mistake_is_named_at_once():
    with pytest.raises(ValueError, match='SizedAnchorGenerator: ') as error:
        build([[32], [64, 0]], [[0.5, 1], [1]], [4, 8, -16], offset=1.5)
    message = str(error.value)
    for part in (
        'sizes has 2 levels and strides has 3',
        'aspect_ratios has 2 levels',
        'above 0 per level',
        'strides must be',
        'offset must be from 0 to below 1, got 1.5',
    ):
        assert part in message


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sizes=[[32], [64, 80]]), r'sizes x aspect_ratios give \[3, 6\]'),
        (dict(sizes=[32, [64]]), 'mixes numbers and lists'),
        (dict(sizes=[[], [64]]), 'at least one number'),
        (dict(aspect_ratios=[]), 'at least one number'),
        (dict(strides=[]), 'strides must be'),
        (dict(offset='half'), "got 'half'"),
    ],
)
def test_what_a_shared_head_cannot_serve(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**(dict(sizes=[[32], [64]], strides=[4, 8]) | arguments))


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match='scales'):
        build(scales=[8])


TRAIN = dict(
    assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0
    ),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)
HEADS = {
    'RPNHead': dict(
        train_cfg=dict(
            TRAIN,
            sampler=dict(
                type='RandomSampler', num=64, pos_fraction=0.5, neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
        ),
        test_cfg=dict(
            nms_pre=50, max_per_img=20, min_bbox_size=0,
            nms=dict(type='nms', iou_threshold=0.7),
        ),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
    ),
    'RetinaNet': dict(
        type='RetinaHead',
        num_classes=3,
        stacked_convs=1,
        train_cfg=TRAIN,
        test_cfg=dict(
            nms_pre=50, max_per_img=20, min_bbox_size=0, score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', HEADS)
def test_in_a_head(name):
    generator = dict(
        type='mmdet_backbones.SizedAnchorGenerator',
        sizes=[[16], [32], [64]],
        aspect_ratios=[RATIOS],
        strides=[8, 16, 32],
    )
    head = MODELS.build(
        ConfigDict(
            dict(type=name, in_channels=8, feat_channels=8, anchor_generator=generator)
            | HEADS[name]
        )
    )
    maps = tuple(torch.rand(1, 8, 64 // s, 96 // s) for s in (8, 16, 32))
    meta = [
        dict(
            img_shape=(64, 96),
            pad_shape=(64, 96),
            ori_shape=(64, 96),
            scale_factor=(1, 1),
        )
    ]
    boxes = torch.tensor([[10.0, 12, 40, 50], [50, 5, 90, 60]])
    truth = [InstanceData(bboxes=boxes, labels=torch.zeros(2, dtype=torch.long))]
    outputs = head(maps)
    losses = head.loss_by_feat(*outputs, truth, meta)
    sum(loss for values in losses.values() for loss in values).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head.prior_generator.num_base_priors == [3, 3, 3]
    with torch.no_grad():
        found = head.predict_by_feat(*head(maps), batch_img_metas=meta)[0]
    assert found.bboxes.shape[1] == 4
    assert len(found) > 0
