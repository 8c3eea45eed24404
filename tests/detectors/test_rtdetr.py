"""RT-DETR against that of transformers: results, losses, weights, mistakes."""

import copy
import re

import pytest
import torch
from mmdet.models.dense_heads import DINOHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from small_rtdetr import CLASSES, DECODER, MODEL, NECK, build, samples, theirs
from torch import nn

from mmdet_backbones.cli.main import main
from mmdet_backbones.detectors.published import load_published
from mmdet_backbones.detectors.rtdetr import padding_masks
from mmdet_backbones.errors import PretrainedWeightsError

SIZE = (96, 128)


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """A detector of transformers, and its file as transformers writes it."""
    net, folder = theirs(), tmp_path_factory.mktemp('rtdetr')
    net.save_pretrained(folder)
    return net, folder / 'model.safetensors'


@pytest.fixture
def pair(published):
    """The detector of transformers and ours with its weights."""
    ours = build()
    load_published(ours, str(published[1]))
    return ours, published[0]


def test_boxes_and_scores_are_those_of_transformers(pair):
    from transformers import RTDetrImageProcessor

    ours, other = pair
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        outputs = other(images)
        results = ours.predict(images, samples(SIZE, [torch.empty(0, 4)] * 2, [[]] * 2))
    assert outputs.logits.std() > 0.5
    expected = RTDetrImageProcessor().post_process_object_detection(
        outputs, threshold=0.0, target_sizes=[SIZE] * 2
    )
    sides = torch.tensor(SIZE).flip(0).repeat(2)
    for found, wanted in zip(results, expected, strict=True):
        found = found.pred_instances
        torch.testing.assert_close(found.scores, wanted['scores'], atol=1e-5, rtol=0)
        assert torch.equal(found.labels, wanted['labels'])
        # mmdet cuts boxes off at the border.
        boxes = wanted['boxes'].clamp(min=torch.zeros(4), max=sides.float())
        torch.testing.assert_close(
            found.bboxes / sides, boxes / sides, atol=1e-5, rtol=0
        )


def test_names_of_today_load_as_those_of_older_files(published, tmp_path):
    net, older = published
    today = tmp_path / 'today.safetensors'
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(state, today)
    first, second = build(), build(num_queries=10)
    load_published(first, str(today))
    load_published(second, str(older))
    values = second.state_dict()
    assert all(torch.equal(v, values[k]) for k, v in first.state_dict().items())


def test_losses_are_those_of_transformers(pair):
    ours, other = pair
    boxes = [
        torch.tensor([[10.0, 12.0, 60.0, 50.0], [70.0, 20.0, 120.0, 90.0]]),
        torch.tensor([[30.0, 8.0, 90.0, 70.0], [5.0, 40.0, 45.0, 80.0]]),
    ]
    # As many in each image: what fills up the noised boxes is mmdet's.
    labels = [torch.tensor([0, 2]), torch.tensor([1, 1])]
    sides = torch.tensor(SIZE).flip(0).repeat(2)
    targets = [
        dict(
            class_labels=label,
            boxes=torch.cat(((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]), 1)
            / sides,
        )
        for b, label in zip(boxes, labels, strict=True)
    ]
    for net in pair:
        net.train()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    # Noise differs from run to run, so there is hardly any.
    ours.dn_query_generator.label_noise_scale = 1e-9
    ours.dn_query_generator.box_noise_scale = 1e-9
    other.config.label_noise_ratio = other.config.box_noise_scale = 1e-9
    images = torch.rand(2, 3, *SIZE)
    expected = other(images, labels=targets).loss_dict
    found = ours.loss(images, samples(SIZE, boxes, labels))
    kinds = dict(cls='vfl', bbox='bbox', iou='giou')
    names = {
        f'{mine}loss_{kind}': f'loss_{kinds[kind]}{suffix}'
        for kind in kinds
        for mine, suffix in {
            '': '', 'd0.': '_aux_0', 'enc_': '_aux_1', 'dn_': '_dn_1', 'd0.dn_': '_dn_0'
        }.items()
    }  # fmt: skip
    assert names.keys() == found.keys()
    assert set(names.values()) == expected.keys()
    for mine, their in names.items():
        assert expected[their] > 0
        torch.testing.assert_close(
            found[mine].mean(), expected[their], atol=1e-5, rtol=1e-5
        )


def test_the_loss_has_the_gradient_of_transformers():
    from transformers import RTDetrConfig
    from transformers.loss.loss_rt_detr import RTDetrLoss

    loss = MODELS.build(dict(type='mmdet_backbones.QualityVarifocalLoss'))
    scores = torch.randn(1, 6, CLASSES, requires_grad=True)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.4, 0.2, 0.6]])
    moved = torch.rand(1, 6, 4) * 0.2 + 0.3
    their = RTDetrLoss(RTDetrConfig(num_labels=CLASSES)).loss_labels_vfl(
        dict(logits=scores, pred_boxes=moved),
        [dict(class_labels=torch.tensor([2, 0]), boxes=boxes)],
        [(torch.tensor([1, 4]), torch.tensor([0, 1]))],
        num_boxes=2,
    )['loss_vfl']
    labels = torch.tensor([3, 2, 3, 3, 0, 3])
    overlaps = torch.zeros(6)
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

    overlaps[[1, 4]] = bbox_overlaps(
        bbox_cxcywh_to_xyxy(moved[0, [1, 4]]), bbox_cxcywh_to_xyxy(boxes),
        is_aligned=True,
    )  # fmt: skip
    ours = loss(scores[0], (labels, overlaps), torch.ones(6), avg_factor=2)
    torch.testing.assert_close(ours, their)
    gradients = [torch.autograd.grad(x, scores)[0] for x in (ours, their)]
    torch.testing.assert_close(*gradients)
    weighted = loss(scores[0], (labels, overlaps), torch.eye(6)[1], avg_factor=2)
    one = loss(scores[0, 1:2], (labels[1:2], overlaps[1:2]), avg_factor=2)
    torch.testing.assert_close(weighted, one)


@pytest.mark.parametrize('count', [3, 0])
def test_every_parameter_gets_a_gradient_with_and_without_objects(count):
    detector = build().train()
    batch = demo_mm_inputs(2, [[3, *SIZE], [3, 64, 96]], [count] * 2, CLASSES)
    data = detector.data_preprocessor(batch, True)
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []


def test_padding_is_seen_as_mmdets_dino_sees_it():
    register = build()  # registers mmdet's classes
    batch = samples(SIZE, [torch.empty(0, 4)] * 2, [[]] * 2)
    batch[1].set_metainfo(dict(img_shape=(50, 128)))
    maps = [torch.randn(2, 32, SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32)]
    masks = padding_masks(maps, batch)
    for mask, level in zip(masks, maps, strict=True):
        rows = torch.arange(level.shape[2]) * SIZE[0] / level.shape[2] >= 50
        assert not mask[0].any()
        assert torch.equal(mask[1], rows[:, None].expand(mask.shape[1:]))
    memory, more = register.pre_transformer(maps, batch)
    assert memory['memory_mask'].sum() == sum(int(m.sum()) for m in masks) > 0
    assert more['valid_ratios'][1, :, 1].max() < 1 == more['valid_ratios'][0].min()
    with torch.no_grad():
        chosen, _ = register.pre_decoder(**memory)
    # No query starts where there is no image.
    assert chosen['reference_points'][1].min() > 0
    assert padding_masks(maps, batch[:1]) is None is padding_masks(maps, None)


def test_two_detectors_are_built_of_one_config_which_stays_what_it_was():
    model = copy.deepcopy({**MODEL, 'dn_cfg': dict(group_cfg=dict(num_dn_queries=7))})
    before = copy.deepcopy(model)
    parts = ('decoder', 'bbox_head', 'dn_cfg')
    for _ in range(2):
        detector = build(**model)
        assert type(detector.bbox_head) is DINOHead
        assert detector.dn_query_generator.num_dn_queries == 7
    assert [model[part] for part in parts] == [before[part] for part in parts]


def test_weights_of_the_whole_detector_stay(tmp_path):
    path = tmp_path / 'whole.pth'
    first = build()
    torch.save(first.state_dict(), path)
    second = build(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    second.init_weights()
    values = second.state_dict()
    assert all(torch.equal(v, values[k]) for k, v in first.state_dict().items())


def test_maps_that_the_decoder_is_not_made_for_are_refused_and_the_line_cures():
    neck = {**NECK, 'in_channels': [128, 256]}
    backbone = {**MODEL['backbone'], 'out_strides': (16, 32)}
    images = torch.rand(1, 3, *SIZE)
    batch = samples(SIZE, [torch.empty(0, 4)], [[]])
    detector = build(backbone=backbone, neck=neck)
    with pytest.raises(ValueError, match='made for 3 maps, the neck gives 2') as told:
        detector.predict(images, batch)
    levels = int(re.search(r'cross_attn_cfg\.num_levels=(\d)', str(told.value))[1])
    decoder = copy.deepcopy(DECODER)
    decoder['layer_cfg']['cross_attn_cfg']['num_levels'] = levels
    cured = build(backbone=backbone, neck=neck, decoder=decoder)
    assert len(cured.predict(images, batch)[0].pred_instances) == 20


def test_images_with_fewer_places_than_queries_are_refused_and_the_line_cures():
    settings = dict(num_queries=300, test_cfg=dict(max_per_img=300))
    images, batch = torch.rand(1, 3, *SIZE), samples(SIZE, [torch.empty(0, 4)], [[]])
    with pytest.raises(ValueError, match='of this size have 252') as told:
        build(**settings).predict(images, batch)
    queries, most = map(int, re.findall(r'=(\d+)', str(told.value))[-2:])
    cured = build(num_queries=queries, test_cfg=dict(max_per_img=most))
    assert len(cured.predict(images, batch)[0].pred_instances) == 252


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        (
            dict(bbox_head={**MODEL['bbox_head'], 'num_classes': 5}),
            r'of another shape are .*cls_branches.*\(5, 32\) here, \(3, 32\) there',
        ),
        (
            dict(decoder={**DECODER, 'num_layers': 3}),
            r'it lacks .*cls_branches\.2\.weight.* \(30 tensors\)',
        ),
        (
            dict(decoder={**DECODER, 'num_layers': 1}),
            r'more than the detector .*bbox_embed\.1\..* \(34 tensors\)',
        ),
    ],
)
def test_weights_of_another_detector_are_refused(published, changes, told):
    detector = build(**changes)
    before = copy.deepcopy(detector.state_dict())
    with pytest.raises(PretrainedWeightsError, match=told):
        load_published(detector, str(published[1]))
    after = detector.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_a_converted_file_is_one_that_a_training_starts_from(published, tmp_path):
    net, source = published
    config, target = tmp_path / 'mine.py', tmp_path / 'whole.pth'
    config.write_text(f'model = {MODEL!r}\n')
    words = ['convert', str(source), '--to', str(config), '-o', str(target)]
    assert main(words) == 0
    detector = build()
    load_checkpoint(detector, str(target), strict=True)
    images = torch.rand(1, 3, *SIZE)
    batch = samples(SIZE, [torch.empty(0, 4)], [[]])
    with torch.no_grad():
        scores = net(images).logits.sigmoid().flatten().topk(20).values
        found = detector.predict(images, batch)[0].pred_instances.scores
    torch.testing.assert_close(found, scores, atol=1e-5, rtol=0)


def test_a_conversion_says_what_it_cannot_do(published, tmp_path, capsys):
    config, target = tmp_path / 'mine.py', tmp_path / 'whole.pth'
    config.write_text(f'model = {MODEL!r}\n')
    words = ['convert', str(published[1]), '--to', str(config), '-o', str(target)]
    assert main([*words, '--allow-missing', 'neck.*']) == 1
    assert 'leave out --allow-missing' in capsys.readouterr().err
    config.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    assert main(words) == 1
    assert 'this config has RetinaNet' in capsys.readouterr().err
    assert not target.exists()
