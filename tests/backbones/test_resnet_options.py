"""ResNet: checkpointing, deformable convolutions, plugins, initial weights."""

import copy

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdet_backbones.backbones.residual import resnet_block
from mmdet_backbones.backbones.residual.res2net import Res2Net
from mmdet_backbones.backbones.residual.resnet import ResNet

TINY = dict(stage_blocks=(1, 2), base_channels=16, norm_eval=False)
SMALL = dict(depth=50, base_channels=16)
POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
CONTEXT = dict(type='ContextBlock', ratio=0.5)


def tiny(**kwargs) -> ResNet:
    torch.manual_seed(0)
    return ResNet(**{**TINY, **kwargs})


def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def train_step(backbone, run=None):
    """Return the gradients and the buffers after one step, by name."""
    backbone.train()
    torch.manual_seed(0)
    x = image().to(backbone.conv1.weight.dtype)
    outputs = backbone(x) if run is None else run(x)
    sum(out.square().mean() for out in outputs).backward()
    gradients = {k: p.grad for k, p in backbone.named_parameters()}
    return gradients, {k: b.clone() for k, b in backbone.named_buffers()}


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(block='basic'),
        dict(groups=2, base_width=8),
        dict(frozen_stages=1),
        dict(norm_eval=True),
        dict(drop_path_rate=0.5),
        dict(block='basic', drop_path_rate=0.5),
        dict(norm_cfg=dict(type='mmdet_backbones.FrozenBN')),
        dict(norm_cfg=dict(type='BN', momentum=None)),
        dict(plugins=[dict(cfg=CONTEXT, position=p) for p in POSITIONS[1:2]]),
    ],
)
def test_a_checkpointed_step_is_the_same_step(kwargs):
    plain, checkpointing = tiny(**kwargs), tiny(**kwargs, with_cp=True)
    (expected, statistics), (gradients, buffers) = map(
        train_step, (plain, checkpointing)
    )
    assert list(gradients) == list(expected)
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
            backbone.train()(image())
        return sum(sizes)

    assert kept(tiny(with_cp=True)) < 0.7 * kept(tiny())


@pytest.mark.parametrize(
    ('kind', 'arguments'),
    [
        ('WideBottleneck', dict(planes=16, width=32)),
        ('DroppedBasicBlock', dict(planes=64, drop_path=0.0)),
    ],
)
def test_a_block_alone_recomputes_and_counts_a_batch_once(kind, arguments):
    block_of = getattr(resnet_block, kind)
    steps = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        block = block_of(64, with_cp=with_cp, **arguments).train()
        x = torch.rand(2, 64, 8, 8, requires_grad=True)
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = block(x)
        out.square().mean().backward()
        grads = {n: p.grad for n, p in block.named_parameters()}
        steps.append((sum(kept.values()), {**grads, **dict(block.named_buffers())}))
    (plain, expected), (fewer, found) = steps
    assert fewer < plain
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_deformable_convolutions_of_one_stage(kind, groups):
    dcn = dict(type=kind, deform_groups=2, fallback_on_stride=False)
    given = copy.deepcopy(dcn)
    where = dict(stage_with_dcn=(False, True))
    backbone = tiny(dcn=dcn, groups=groups, base_width=16, **where)
    assert dcn == given
    assert not hasattr(backbone.layer1[0].conv2, 'conv_offset')
    for block in backbone.layer2:
        assert block.conv2.groups == groups
        assert block.conv2.conv_offset.out_channels == (36 if kind == 'DCN' else 54)
    backbone.init_weights()
    for block in backbone.layer2:
        assert (block.conv2.conv_offset.weight == 0).all()
        nn.init.ones_(block.bn3.weight)
    gradients, _ = train_step(backbone)
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert gradients['layer2.1.conv2.conv_offset.weight'].abs().sum() > 0


@pytest.mark.parametrize('groups', [1, 2])
def test_deformable_convolutions_without_offset_are_ordinary_ones(groups):
    plain = tiny(groups=groups, base_width=16).eval()
    backbone = tiny(
        groups=groups,
        base_width=16,
        dcn=dict(type='DCN'),
        stage_with_dcn=(True, True),
    ).eval()
    backbone.load_state_dict(plain.state_dict(), strict=False)
    for a, b in zip(backbone(image()), plain(image()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_only_the_deformable_convolutions_may_have_groups():
    dcn = dict(type='DCNv2', groups=2, deform_groups=2)
    backbone = tiny(dcn=dcn, stage_with_dcn=(False, True))
    assert [b.conv2.groups for b in (*backbone.layer1, *backbone.layer2)] == [1, 2, 2]
    assert backbone.layer2[0].conv2.weight.shape == (32, 16, 3, 3)
    assert len(backbone(image())) == 2


@pytest.mark.parametrize('net', [ResNet, Res2Net])
@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_deformable_convolutions_take_channels_last_maps(net, kind):
    torch.manual_seed(0)
    dcn = dict(type=kind, deform_groups=2)
    shape = dict(stage_blocks=(1, 2), base_channels=16, base_width=16)
    backbone = net(dcn=dcn, stage_with_dcn=(False, True), **shape).eval()
    dense = []
    for module in backbone.modules():
        if hasattr(module, 'conv_offset'):
            nn.init.normal_(module.conv_offset.weight, std=0.05)
            module.register_forward_pre_hook(
                lambda conv, x: dense.extend(
                    (x[0].is_contiguous(), conv.weight.is_contiguous())
                )
            )
            module.conv_offset.register_forward_hook(
                lambda conv, x, out: dense.append(out.is_contiguous())
            )
    expected = backbone(image())
    backbone.to(memory_format=torch.channels_last)
    outputs = backbone(image().to(memory_format=torch.channels_last))
    assert dense
    assert all(dense)
    for out, reference in zip(outputs, expected, strict=True):
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('groups', [1, 2])
def test_plugins_have_the_channels_of_their_position(position, groups):
    plugin = dict(cfg=CONTEXT, position=position, stages=(False, True))
    given = copy.deepcopy(plugin)
    backbone = tiny(plugins=[plugin], groups=groups, base_width=16)
    assert plugin == given
    channels = 128 if position == 'after_conv3' else 32 * groups
    assert not hasattr(backbone.layer1[0], 'context_block')
    for block in backbone.layer2:
        assert block.context_block.in_channels == channels
    gradients, _ = train_step(backbone)
    assert [k for k, gradient in gradients.items() if gradient is None] == []


def test_several_plugins_of_one_kind_need_names():
    plugins = [dict(cfg=dict(CONTEXT, postfix=i), position='after_conv3') for i in '12']
    assert hasattr(tiny(plugins=plugins).layer1[0], 'context_block2')
    plugins = [dict(cfg=CONTEXT, position=position) for position in POSITIONS]
    with pytest.raises(ValueError, match=r"'context_block'.*postfix"):
        tiny(plugins=plugins)
    apart = [(True, False), (False, True)]
    plugins = [dict(cfg=CONTEXT, position='after_conv2', stages=s) for s in apart]
    assert len(tiny(plugins=plugins)(image())) == 2


@pytest.mark.parametrize('block', ['basic', 'bottleneck'])
@pytest.mark.parametrize('zero', [False, True])
def test_zero_init_residual_starts_blocks_as_their_shortcut(zero, block):
    backbone = tiny(zero_init_residual=zero, block=block)
    backbone.init_weights()
    x = torch.randn(2, backbone.out_channels[1], 8, 8).relu()
    assert torch.equal(backbone.layer2[1].train()(x), x) is zero


@pytest.mark.parametrize(
    'norm_cfg',
    [dict(type='BN', requires_grad=False), dict(type='mmdet_backbones.FrozenBN')],
)
def test_a_scale_that_never_trains_does_not_start_at_zero(norm_cfg):
    backbone = tiny(norm_cfg=norm_cfg, zero_init_residual=True)
    backbone.init_weights()
    assert (backbone.layer2[1].bn3.weight == 1).all()


def test_initial_weights_are_those_of_mmdet():
    from mmdet.models.backbones import ResNet as Host

    backbone = ResNet(**SMALL)
    backbone.init_weights()
    theirs = Host(**SMALL)
    theirs.init_weights()
    expected = theirs.state_dict()
    for name, value in backbone.state_dict().items():
        if value.dim() == 4:
            assert value.std() == pytest.approx(float(expected[name].std()), rel=0.15)
        else:
            assert torch.equal(value, expected[name]), name


def test_init_cfg_goes_on_top():
    backbone = tiny(init_cfg=dict(type='Constant', val=0.5, layer='Conv2d'))
    backbone.init_weights()
    assert (backbone.layer1[0].conv1.weight == 0.5).all()
    assert (backbone.bn1.weight == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_compiled_step_is_the_same_step(with_cp):
    gradients, statistics = train_step(tiny().double())
    backbone = tiny(with_cp=with_cp).double()
    run = torch.compile(backbone, backend='aot_eager_decomp_partition')
    compiled_gradients, buffers = train_step(backbone, run)
    torch.testing.assert_close(compiled_gradients, gradients)
    torch.testing.assert_close(buffers, statistics)


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(block='basic'),
        dict(groups=2, base_width=8),
        dict(plugins=[dict(cfg=CONTEXT, position='after_conv3')]),
    ],
)
def test_drop_path_leaves_the_shortcut_of_a_dropped_sample(kwargs):
    net = copy.deepcopy(tiny(stage_blocks=(1, 3), drop_path_rate=0.8, **kwargs))
    assert not hasattr(net.layer1[0], 'drop_path')
    drops = [block.drop_path for block in net.layer2]
    assert [d.drop_prob for d in drops] == pytest.approx([0.8 / 3, 1.6 / 3, 0.8])
    plain = tiny(stage_blocks=(1, 3), **kwargs).eval()
    plain.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net.eval()(image())[-1], plain(image())[-1])
        drops[-1].drop_prob = 1 - 1e-7
        x = torch.rand_like(net.layer2[1](net.layer2[0](net(image())[0])))
        assert torch.equal(net.train().layer2[-1](x), x)


@pytest.mark.parametrize('kind', [ResNet, Res2Net])
@pytest.mark.parametrize('deep_stem', [False, True])
def test_the_stem_is_the_level_of_stride_2(kind, deep_stem):
    net = kind(depth=50, base_channels=16, deep_stem=deep_stem, out_strides=(2, 8))
    assert net.stem_channels == net.out_channels[0] == 16
    net.eval()
    with torch.no_grad():
        maps = net(image()[..., :63, :95])
        x = net.layer2(net.layer1(net.maxpool(maps[0])))
    assert [tuple(m.shape[2:]) for m in maps] == [(32, 48), (8, 12)]
    assert torch.equal(x, maps[1])
    alone = kind(depth=50, deep_stem=deep_stem, out_strides=(2,), frozen_stages=0)
    assert alone.res_layers == []
    assert len(alone.built_stages()) == 1
    with pytest.raises(
        ValueError, match=r'levels are stem \(64 channels, stride 2\), 0'
    ):
        kind(depth=50, out_strides=(3,))
    # By number they are counted as mmdet does.
    assert kind(depth=50, out_indices=(-1,)).out_strides == (32,)


def test_init_weights_alone_logs_what_was_drawn(capfd):
    logger = MMLogger.get_instance('drawn', log_level='INFO')
    told: list[str] = []
    logger.addFilter(lambda record: not told.append(record.getMessage()))
    net = tiny()
    net.init_weights()
    kept = [text for text in told if 'The value is the same before and after' in text]
    assert 0 < len(kept) < len(told)
    # One and zero, as they were built.
    assert all('.bn' in text or '.downsample.1' in text for text in kept[1:])
    assert any('conv1.weight' in t and '`init_weights` in ResNet' in t for t in told)
    assert not any(hasattr(m, '_params_init_info') for m in net.modules())
