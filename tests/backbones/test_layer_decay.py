"""Layer groups of backbones, and learning rates that fall towards the stem."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_backbones.backbones.layer_groups import layer_groups, not_decayed
from mmdet_backbones.catalog.entries import resolve
from mmdet_backbones.shapes.build import build_weightless

NETS = {
    # Number of blocks and the stem; parts of the first and of the last group.
    'res2net50_26w_4s': (17, 'conv1', 'layer4.2'),
    'timm/resnet18': (9, 'timm_model.conv1', 'timm_model.layer4.1'),
    'timm/vit_tiny_patch16_224': (13, 'timm_model.model.cls_token', 'blocks.11'),
    'timm/convnext_atto': (13, 'timm_model.stem_0', 'stages_3.blocks.1'),
    'torchvision/resnet18': (9, 'body.conv1', 'body.layer4.1'),
    'mmpretrain/swin-tiny': (13, 'patch_embed', 'stages.3.blocks.1'),
    'mmdet/ResNet-18': (9, 'conv1', 'layer4.1'),
}


def weightless(name: str, **arguments) -> nn.Module:
    return build_weightless({**resolve(name), **arguments})


@pytest.mark.parametrize('name', NETS)
def test_groups_hold_every_parameter_once(name):
    count, first, last = NETS[name]
    net = weightless(name)
    groups = layer_groups(net)
    names = [parameter for group in groups for parameter in group]
    assert sorted(names) == sorted(n for n, _ in net.named_parameters())
    assert len(groups) == count
    assert any(parameter.startswith(first) for parameter in groups[0])
    assert any(last in parameter for parameter in groups[-1])
    assert all(groups)


def test_groups_by_stage():
    groups = layer_groups(weightless('res2net50_26w_4s'), 'stage_wise')
    assert [group[0].split('.')[0] for group in groups] == [
        'conv1',
        'layer1',
        'layer2',
        'layer3',
        'layer4',
    ]


def test_timm_names_what_is_not_decayed():
    net = weightless('timm/vit_tiny_patch16_224')
    assert not_decayed(net) == {
        'timm_model.model.cls_token',
        'timm_model.model.pos_embed',
    }
    swin = not_decayed(weightless('mmpretrain/swin-tiny'))
    assert len(swin) == 12
    assert all(n.endswith('relative_position_bias_table') for n in swin)


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.bbox_head = nn.Linear(4, 4)


def wrapper_cfg(**paramwise) -> dict:
    return dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        constructor='mmdet_backbones.LayerDecayConstructor',
        paramwise_cfg=paramwise,
    )


def options(detector: nn.Module, **paramwise) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter in the optimiser."""
    wrapper = build_optim_wrapper(detector, wrapper_cfg(**paramwise))
    names = {id(p): n for n, p in detector.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            assert name not in found
            found[name] = (group['lr'], group['weight_decay'])
    return found


@pytest.fixture(scope='module')
def vit() -> Detector:
    from mmdet_backbones.registry import MODELS

    return Detector(MODELS.build(resolve('timm/vit_tiny_patch16_224')))


def test_rates_fall_from_the_top_to_the_stem(vit):
    found = options(vit, decay_rate=0.5, norm_decay_mult=0.0, bias_decay_mult=0.0)
    prefix = 'backbone.timm_model.model'
    assert set(found) == {name for name, _ in vit.named_parameters()}
    assert found['bbox_head.weight'] == (1.0, 0.05)
    assert found[f'{prefix}.blocks.11.mlp.fc1.weight'] == (0.5, 0.05)
    assert found[f'{prefix}.blocks.0.attn.qkv.weight'] == (0.5**12, 0.05)
    assert found[f'{prefix}.patch_embed.proj.weight'] == (0.5**13, 0.05)
    # Every block reads the token.
    assert found[f'{prefix}.cls_token'] == (1.0, 0.0)
    # Embeddings, normalisation and biases are not decayed.
    assert found[f'{prefix}.pos_embed'] == (0.5**13, 0.0)
    assert found[f'{prefix}.blocks.3.norm1.weight'] == (0.5**9, 0.0)
    assert found['bbox_head.bias'] == (1.0, 0.0)


def test_few_groups_in_the_optimiser(vit):
    wrapper = build_optim_wrapper(vit, wrapper_cfg(decay_rate=0.9, norm_decay_mult=0.0))
    # Two for each of 13 layers, one for the head and one for the tokens; not one per
    # parameter.
    assert len(wrapper.optimizer.param_groups) <= 2 * 13 + 2


def test_factors_multiply(vit):
    found = options(
        vit,
        decay_rate=0.5,
        backbone_lr_mult=0.1,
        custom_keys=dict(bbox_head=dict(lr_mult=2.0), qkv=dict(decay_mult=0.5)),
    )
    qkv = found['backbone.timm_model.model.blocks.11.attn.qkv.weight']
    assert qkv == pytest.approx((0.05, 0.025))
    assert found['bbox_head.weight'] == (2.0, 0.05)


def test_frozen_parts_are_left_out():
    detector = Detector(weightless('res2net50_26w_4s', frozen_stages=1))
    found = options(detector, decay_rate=0.9)
    trained = {n for n, p in detector.named_parameters() if p.requires_grad}
    assert set(found) == trained
    assert not any('layer1' in name for name in found)
    assert 'backbone.conv1.weight' not in found
    assert found['backbone.layer4.2.conv3.weight'][0] == pytest.approx(0.9)


def test_mmdet_knows_the_layers_of_convnext_only(vit):
    """What mmdet's own constructor does with any other backbone."""
    from mmdet.engine.optimizers import LearningRateDecayOptimizerConstructor

    host = LearningRateDecayOptimizerConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        dict(decay_rate=0.9, decay_type='layer_wise', num_layers=12),
    )
    with pytest.raises(NotImplementedError):
        host(vit)
    assert options(vit, decay_rate=0.9)


def test_mistakes_are_named_together(vit):
    with pytest.raises(ValueError, match='decay_rate must be above 0') as caught:
        build_optim_wrapper(
            vit,
            wrapper_cfg(num_layers=12, norm_decay=0.0, decay_type='blockwise'),
        )
    for words in ("'num_layers'", 'norm_decay_mult', "'stage_wise', got 'blockwise'"):
        assert words in str(caught.value)


def test_a_model_without_backbone():
    with pytest.raises(ValueError, match='Linear has no backbone'):
        build_optim_wrapper(nn.Linear(2, 2), wrapper_cfg(decay_rate=0.9))


def test_a_step_changes_the_stem_less_than_the_top():
    from mmdet_backbones.registry import MODELS

    backbone = MODELS.build(resolve('timm/resnet18'))
    detector = Detector(backbone)
    cfg = wrapper_cfg(decay_rate=0.5)
    cfg['optimizer'] = dict(type='SGD', lr=1.0, weight_decay=0.0)
    wrapper = build_optim_wrapper(detector, cfg)
    for parameter in detector.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    wrapper.step()
    moved = {n: (before[n] - p).mean().item() for n, p in backbone.named_parameters()}
    assert moved['timm_model.conv1.weight'] == pytest.approx(0.5**9, rel=1e-3)
    assert moved['timm_model.layer4.1.conv2.weight'] == pytest.approx(0.5, rel=1e-3)
