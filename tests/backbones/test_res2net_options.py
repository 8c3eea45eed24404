"""Res2Net: checkpointing, deformable convolutions, plugins, initial weights."""

import copy

import pytest
import torch
from torch import nn

from mmdet_backbones.backbones.checkpointing import checkpointed
from mmdet_backbones.backbones.residual.res2net import Res2Net

TINY = dict(stage_blocks=(1, 2), base_channels=16, base_width=8, norm_eval=False)
POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


def tiny(**kwargs) -> Res2Net:
    torch.manual_seed(0)
    return Res2Net(**{**TINY, **kwargs})


def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def train_step(backbone, run=None):
    """Return the gradients and the buffers after one step, by name."""
    backbone.train()
    torch.manual_seed(0)
    x = image().to(backbone.layer1[0].conv1.weight.dtype)
    outputs = backbone(x) if run is None else run(x)
    sum(out.square().mean() for out in outputs).backward()
    gradients = {k: p.grad for k, p in backbone.named_parameters()}
    return gradients, {k: b.clone() for k, b in backbone.named_buffers()}


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(frozen_stages=0),
        dict(frozen_stages=1),
        dict(norm_eval=True),
        dict(drop_path_rate=0.5),
        dict(norm_cfg=dict(type='BN', momentum=None)),
        dict(norm_cfg=dict(type='BN', track_running_stats=False)),
    ],
)
def test_a_checkpointed_step_is_the_same_step(kwargs):
    plain, checkpointing = tiny(**kwargs), tiny(**kwargs, with_cp=True)
    (expected, statistics), (gradients, buffers) = map(
        train_step, (plain, checkpointing)
    )
    for name, gradient in expected.items():
        if gradient is None:
            assert gradients[name] is None
        else:
            assert torch.equal(gradients[name], gradient), name
    for name, buffer in statistics.items():
        assert torch.equal(buffers[name], buffer), name
        if name.endswith('num_batches_tracked'):
            assert buffer <= 1


def test_checkpointing_keeps_fewer_activations():
    def kept(backbone):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone(image())
        return sum(sizes)

    assert kept(tiny(with_cp=True)) < 0.7 * kept(tiny())


def test_layers_are_restored_when_the_second_run_fails():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.runs = 0

        def forward(self, x):
            self.runs += 1
            x = self.norm(x)
            if self.runs > 1:
                raise RuntimeError('second run')
            return x * x.exp()

    layer = Once()
    counter = layer.norm.num_batches_tracked
    out = checkpointed(layer, layer, image().requires_grad_())
    with pytest.raises(RuntimeError, match='second run'):
        out.sum().backward()
    assert layer.norm.momentum == 0.1
    assert layer.norm.num_batches_tracked is counter
    assert counter == 1


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_deformable_branches_of_one_stage(kind):
    dcn = dict(type=kind, deform_groups=2, fallback_on_stride=False)
    given = copy.deepcopy(dcn)
    backbone = tiny(dcn=dcn, stage_with_dcn=(False, True))
    assert dcn == given
    assert not backbone.layer1[0].deformable
    for block in backbone.layer2:
        assert [hasattr(conv, 'conv_offset') for conv in block.convs] == [True] * 3
    backbone.init_weights()
    assert (backbone.layer2[1].convs[0].conv_offset.weight == 0).all()
    for norm in (block.bn3 for block in backbone.layer2):
        nn.init.ones_(norm.weight)
    gradients, _ = train_step(backbone)
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert gradients['layer2.1.convs.2.conv_offset.weight'].abs().sum() > 0


def test_deformable_branches_without_offset_are_ordinary_ones():
    plain = tiny(groups=2).eval()
    backbone = tiny(
        groups=2, dcn=dict(type='DCN'), stage_with_dcn=(True, True), with_cp=True
    ).eval()
    backbone.load_state_dict(plain.state_dict(), strict=False)
    for a, b in zip(backbone(image()), plain(image()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_deformable_branches_may_fall_back_where_a_block_strides():
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    backbone = tiny(dcn=dcn, stage_with_dcn=(True, True))
    blocks = (*backbone.layer1, *backbone.layer2)
    assert [block.deformable for block in blocks] == [True, False, True]


def test_frozen_deformable_stage_has_no_gradient():
    backbone = tiny(
        dcn=dict(type='DCNv2', deform_groups=1),
        stage_with_dcn=(True, True),
        frozen_stages=1,
    )
    gradients, _ = train_step(backbone)
    for name, gradient in gradients.items():
        assert (gradient is not None) is name.startswith('layer2'), name


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('kind', ['ContextBlock', 'NonLocal2d'])
def test_plugins_have_the_channels_of_their_position(position, kind):
    cfg = dict(type=kind, **(dict(ratio=0.5) if kind == 'ContextBlock' else {}))
    plugin = dict(cfg=cfg, position=position, stages=(False, True))
    given = copy.deepcopy(plugin)
    backbone = tiny(plugins=[plugin])
    assert plugin == given
    name = 'context_block' if kind == 'ContextBlock' else 'nonlocal_block'
    channels = 128 if position == 'after_conv3' else 16 * 4
    assert not hasattr(backbone.layer1[0], name)
    for block in backbone.layer2:
        assert getattr(block, name).in_channels == channels
    gradients, _ = train_step(backbone)
    assert [k for k, gradient in gradients.items() if gradient is None] == []


def test_several_plugins_at_all_positions_with_checkpointing():
    plugins = [
        dict(
            cfg=dict(type='ContextBlock', ratio=0.5, postfix=f'_{position}_{number}'),
            position=position,
        )
        for position in POSITIONS
        for number in range(2)
    ]
    plain, checkpointing = tiny(plugins=plugins), tiny(plugins=plugins, with_cp=True)
    assert hasattr(plain.layer1[0], 'context_block_after_conv2_1')
    expected, gradients = train_step(plain)[0], train_step(checkpointing)[0]
    for name, gradient in expected.items():
        assert torch.equal(gradients[name], gradient), name


def test_plugins_keep_their_own_initial_weights():
    cfg = dict(type='ContextBlock', ratio=0.5)
    backbone = tiny(plugins=[dict(cfg=cfg, position='after_conv3')])
    before = copy.deepcopy(backbone.layer2[1].context_block.state_dict())
    backbone.init_weights()
    after = backbone.layer2[1].context_block.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_plugin_may_need_its_result_in_backward():
    cfg = dict(type=Gate)
    backbone = tiny(plugins=[dict(cfg=cfg, position='after_conv3')])
    gradients, _ = train_step(backbone)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


class Gate(nn.Sigmoid):
    """A layer that autograd differentiates from its result."""

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels


def test_two_plugins_of_one_name_are_refused():
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.5), position='after_conv3')
    with pytest.raises(ValueError, match=r"'context_block'.*postfix"):
        tiny(plugins=[plugin, plugin])


@pytest.mark.parametrize('zero', [False, True])
def test_zero_init_residual_starts_blocks_as_their_shortcut(zero):
    backbone = tiny(zero_init_residual=zero)
    backbone.init_weights()
    x = torch.randn(2, 128, 8, 8).relu()
    assert torch.equal(backbone.layer2[1].train()(x), x) is zero


def test_initial_weights_are_kaiming_and_unit_norms():
    backbone = tiny(deep_stem=True, avg_down=True)
    nn.init.constant_(backbone.stem[1].weight, 5)
    backbone.init_weights()
    for conv in (backbone.stem[3], backbone.layer2[0].conv3):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert (backbone.stem[1].weight == 1).all()
    assert (backbone.layer1[0].downsample[2].weight == 1).all()


def test_init_cfg_goes_on_top():
    backbone = tiny(init_cfg=dict(type='Constant', val=0.5, layer='Conv2d'))
    backbone.init_weights()
    assert (backbone.layer1[0].conv1.weight == 0.5).all()
    assert (backbone.bn1.weight == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_compiled_step_is_the_same_step(with_cp):
    # In double precision: in single, rounding decides on which side of zero a few
    # activations of so small a net fall.
    gradients, statistics = train_step(tiny().double())
    backbone = tiny(with_cp=with_cp).double()
    # Partitions the graph and recomputes as the default backend, without its C++.
    run = torch.compile(backbone, backend='aot_eager_decomp_partition')
    compiled_gradients, buffers = train_step(backbone, run)
    torch.testing.assert_close(compiled_gradients, gradients)
    torch.testing.assert_close(buffers, statistics)
