"""One loss, backward pass, step and prediction of every shipped config."""

from __future__ import annotations

import copy

import pytest
import torch
from config_files import CONFIGS, neck_strides, read
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper

BY_DEFAULT = (
    'configs/yolox/yolox-s_shufflenet-v2-1x_8xb8-300e_coco.py',
    'configs/yolov3/yolov3_mobilenet-v3-small_8xb24-ms-416-300e_coco.py',
)


def without_weights(part):
    """The same config without any file to load."""
    if isinstance(part, dict):
        weights = part.get('init_cfg')
        if isinstance(weights, dict) and weights.get('type') == 'Pretrained':
            part['init_cfg'] = None
        for value in part.values():
            without_weights(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            without_weights(value)
    return part


def with_fewer_proposals(model):
    """The same detector with tens of regions, which show as much as thousands."""
    if model.type == 'DINO':
        # It picks its queries among the places of its maps, here 340 or more.
        model.num_queries = 100
    if model.get('roi_head'):
        model.train_cfg.rpn_proposal.max_per_img = 40
        model.test_cfg.rpn.max_per_img = 40
    return model


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow)
        for name in CONFIGS
    ],
)
def test_loss_backward_and_predict(name):
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules()
    # YOLOX's multi-scale training asks for the number of the iteration.
    MessageHub.get_current_instance().update_info('iter', 0)
    config = copy.deepcopy(read(name))
    detector = MODELS.build(with_fewer_proposals(without_weights(config.model)))
    detector.init_weights()
    # As a run on one process does; synchronised layers want a GPU.
    detector = revert_sync_batchnorm(detector)
    optimizer = build_optim_wrapper(detector, config.optim_wrapper).optimizer

    side = 128
    shapes = [[3, side, side], [3, side - 32, side]]
    batch = demo_mm_inputs(2, shapes, num_items=[3, 2], num_classes=2)
    for sample in batch['data_samples']:
        sample.gt_instances.labels.zero_()
    data = detector.data_preprocessor(batch, True)
    maps = detector.extract_feat(data['inputs'])
    strides = neck_strides(config.model, list(detector.backbone.out_strides))
    assert [tuple(x.shape[2:]) for x in maps] == [
        (-(-side // s), -(-side // s)) for s in strides
    ]
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    assert torch.isfinite(loss)
    loss.backward()
    without = [
        key
        for key, p in detector.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert [key for key in without if key.startswith(('backbone', 'neck'))] == []
    held = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert {id(p) for p in detector.parameters() if p.requires_grad} <= held
    optimizer.step()

    detector.eval()
    with torch.no_grad():
        results = detector(**detector.data_preprocessor(batch, False), mode='predict')
    assert len(results) == 2
    for result in results:
        assert result.pred_instances.bboxes.shape[1] == 4
        assert torch.isfinite(result.pred_instances.scores).all()


def test_what_runs_by_default_is_there():
    assert set(BY_DEFAULT) <= set(CONFIGS)
