"""Every class of mmpretrain as a backbone, or the reason why it cannot be one."""

import copy
from typing import Any

import mmpretrain.models.backbones as zoo
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdet_backbones.adapters.mmpretrain.backbone import MMPretrainBackbone
from mmdet_backbones.adapters.mmpretrain.nets import make_spec
from mmdet_backbones.adapters.mmpretrain.prepare import FAMILIES
from mmdet_backbones.adapters.mmpretrain.structure import structure_of

FEATMAP = dict(out_type='featmap')
NOT_POOLED = dict(gap_before_final_norm=False)
PADDED = dict(pad_small_map=True)
SMALL_VIT: dict[str, Any] = dict(
    embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64
)
HR_STAGE = dict(num_modules=1, block='BASIC')
HR = {
    f'stage{n}': dict(
        **HR_STAGE, num_branches=n, num_blocks=(1,) * n, num_channels=(4, 8, 12, 16)[:n]
    )
    for n in (2, 3, 4)
}
HR['stage1'] = dict(
    num_modules=1,
    num_branches=1,
    block='BOTTLENECK',
    num_blocks=(1,),
    num_channels=(4,),
)
# Class -> arguments of a small net, and what its class is told for maps.
NETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'VGG': (dict(depth=11), {}),
    'RegNet': (dict(arch='regnetx_400mf'), {}),
    'ResNet': (dict(depth=18), {}),
    'ResNetV1c': (dict(depth=18), {}),
    'ResNetV1d': (dict(depth=18), {}),
    'ResNeXt': (dict(depth=50, base_channels=16), {}),
    'ResNeSt': (dict(depth=50, base_channels=16), {}),
    'ResNet_CIFAR': (dict(depth=18, base_channels=8), {}),
    'SEResNet': (dict(depth=50, base_channels=16), {}),
    'SEResNeXt': (dict(depth=50, base_channels=16), {}),
    'Res2Net': (dict(depth=50, base_channels=16), {}),
    'ShuffleNetV1': (dict(groups=3, widen_factor=0.5), {}),
    'ShuffleNetV2': (dict(widen_factor=0.5), {}),
    'MobileNetV2': (dict(widen_factor=0.35), {}),
    'MobileNetV3': (dict(arch='small_050'), {}),
    'MobileOne': (dict(arch='s0'), {}),
    'MobileViT': (dict(arch='xx_small'), {}),
    'EfficientNet': (dict(arch='b0'), {}),
    'EfficientNetV2': (dict(arch='b0'), {}),
    'RepVGG': (dict(arch='A0'), {}),
    'HRNet': (dict(extra=HR), {}),
    'CSPDarkNet': (dict(depth=53), {}),
    'CSPResNet': (dict(depth=50), {}),
    'CSPResNeXt': (dict(depth=50), {}),
    'DenseNet': (
        dict(arch=dict(growth_rate=8, depths=[2, 2, 2, 2], init_channels=16)),
        {},
    ),
    'RepLKNet': (
        dict(
            arch=dict(
                large_kernel_sizes=[7, 7, 7, 7],
                layers=[1, 1, 1, 1],
                channels=[8, 16, 24, 32],
                small_kernel=5,
                dw_ratio=1,
            )
        ),
        {},
    ),
    'ConvMixer': (
        dict(arch=dict(embed_dims=16, depth=3, patch_size=7, kernel_size=5)),
        {},
    ),
    'ConvNeXt': (dict(arch='atto'), NOT_POOLED),
    'EdgeNeXt': (dict(arch='xxsmall'), NOT_POOLED),
    'HorNet': (dict(arch='tiny'), NOT_POOLED),
    'VAN': (dict(arch='tiny'), {}),
    'Conformer': (
        dict(arch=dict(embed_dims=32, depths=3, num_heads=2, channel_ratio=0.25)),
        {},
    ),
    'PoolFormer': (dict(arch='s12'), {}),
    'RIFormer': (dict(arch='s12'), {}),
    'PCPVT': (dict(arch='small'), {}),
    'SVT': (dict(arch='small'), {}),
    'SwinTransformer': (dict(arch='tiny'), PADDED),
    'SwinTransformerV2': (dict(arch='tiny'), PADDED),
    'DaViT': (dict(arch='t'), PADDED),
    'MViT': (dict(arch='tiny'), {}),
    'VisionTransformer': (dict(arch=SMALL_VIT), FEATMAP),
    'DistilledVisionTransformer': (dict(arch=SMALL_VIT), FEATMAP),
    'ViTEVA02': (
        dict(
            arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
        ),
        FEATMAP,
    ),
    'ViTSAM': (
        dict(
            arch=dict(**SMALL_VIT, global_attn_indexes=[1]),
            out_channels=16,
            window_size=4,
        ),
        {},
    ),
    'RevVisionTransformer': (
        dict(arch=SMALL_VIT),
        dict(out_type='featmap', no_custom_backward=True),
    ),
    'T2T_ViT': (
        dict(
            embed_dims=32,
            num_layers=3,
            t2t_cfg=dict(token_dims=16),
            layer_cfgs=dict(num_heads=2, feedforward_channels=64),
        ),
        FEATMAP,
    ),
    'XCiT': (dict(embed_dims=32, depth=2, num_heads=2), FEATMAP),
    'HiViT': (
        # This class needs more blocks in its last stage than before it.
        dict(arch=dict(embed_dims=64, depths=[1, 1, 8], num_heads=2), rpe=False),
        {},
    ),
    # These take images of one size only.
    'BEiTViT': (dict(arch=SMALL_VIT, img_size=64), FEATMAP),
    'TinyViT': (
        dict(
            arch=dict(
                channels=[8, 16, 16, 32], num_heads=[1, 1, 1, 2], depths=[1, 1, 1, 1]
            ),
            img_size=(64, 64),
        ),
        NOT_POOLED,
    ),
    'LeViT': (dict(arch='128s', img_size=64), {}),
    'EfficientFormer': (dict(arch='l1'), dict(reshape_last_feat=True)),
    'RepMLPNet': (
        dict(
            arch=dict(channels=[8, 16, 24, 32], depths=[1] * 4, sharesets_nums=[1] * 4),
            img_size=96,
        ),
        {},
    ),
    'Vig': (dict(arch='tiny'), {}),
    'PyramidVig': (dict(arch='tiny'), {}),
}
REFUSED = {
    'AlexNet': (dict(), 'none of its maps has the size of the image'),
    'InceptionV3': (dict(), r'a tensor of shape \(2, 1000\) and no feature maps'),
    'DeiT3': (dict(arch='s'), 'never use the second of their two normalisations'),
    'LeNet5': (dict(), 'it reads grey images of 32 x 32'),
    'MixMIMTransformer': (dict(arch='base'), 'and no feature maps'),
    'MlpMixer': (dict(arch='small'), 'it gives tokens of images of one size'),
    'SparseConvNeXt': (dict(), 'inside the pretraining SparK only'),
    'SparseResNet': (dict(depth=18), 'inside the pretraining SparK only'),
    'TIMMBackbone': (dict(model_name='x'), "type='mmdet_backbones.TIMMBackbone'"),
    'TNT': (dict(arch='s'), r'a tensor of shape \(2, 384\) and no feature maps'),
}


def build(name: str, **arguments: Any) -> MMPretrainBackbone:
    model = dict(type=name, **copy.deepcopy(NETS[name][0]))
    return MMPretrainBackbone(model, **arguments)


def host_of(name: str, indices: tuple[int, ...]) -> nn.Module:
    arguments, for_maps = copy.deepcopy(NETS[name])
    net_class = getattr(zoo, name)
    index_argument = dict(MViT='out_scales').get(name, 'out_indices')
    if name not in ('HRNet', 'RevVisionTransformer', 'HiViT'):
        for_maps[index_argument] = list(indices)
    return net_class(**arguments, **for_maps)


def image(net: MMPretrainBackbone) -> Tensor:
    return torch.rand(2, 3, *(net._sizes.fixed or (64, 96)))


def test_no_class_is_forgotten():
    # CSPNet is what the three nets above it are made of, it has no net of its own.
    assert sorted({*NETS, *REFUSED, 'CSPNet'}) == sorted(zoo.__all__)


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_a_backbone_says_why(name):
    arguments, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        MMPretrainBackbone(dict(type=name, **arguments))


def test_a_net_that_its_own_class_cannot_run_says_why():
    # HiViT takes its second block for the last one of a last stage of two.
    few = dict(type='HiViT', arch=dict(embed_dims=64, depths=[1, 1, 2], num_heads=2))
    with pytest.raises(ValueError, match=r'it fails on images of \(96, 160\) and of'):
        MMPretrainBackbone(few)


def test_a_net_loads_what_it_saved_though_its_class_deletes_tables():
    net = build('SwinTransformerV2')
    tables = [k for k in net.state_dict() if 'relative_coords_table' in k]
    expected = net.state_dict()[tables[0]].clone()
    saved = {k: v + 1 if k in tables else v for k, v in net.state_dict().items()}
    net.load_state_dict(saved)
    # A table belongs to the windows of the net, not to those of the checkpoint.
    assert torch.equal(net.state_dict()[tables[0]], expected)


def test_a_class_without_its_own_nets_needs_its_arguments():
    with pytest.raises(TypeError, match="'arch' and 'stem_fn'"):
        MMPretrainBackbone(dict(type='CSPNet'))


def test_a_conformer_gives_the_maps_that_its_class_pools():
    net = build('Conformer', out_strides=(8, 32)).eval()
    assert net.out_indices == (2, 3)
    host = host_of('Conformer', net.out_indices)
    host.load_state_dict(net.state_dict(), strict=False)
    host.eval()
    x = image(net)
    with torch.no_grad():
        for mine, (pooled, _) in zip(net(x), host(x), strict=True):
            torch.testing.assert_close(mine.mean((2, 3)), pooled)


def test_a_net_of_ones_own_is_taken_as_its_class_takes_it():
    layers = [['mobilenetv2', 8, 1, 1, 2], ['mobilevit', 16, 2, 8, 16, 1, 2]]
    net = MMPretrainBackbone(dict(type='MobileViT', arch=layers))
    # The last level is widened by a convolution.
    assert [(lv.channels, lv.stride) for lv in net.levels] == [(8, 2), (64, 4)]
    for wrong in (dict(depths=[1]), 'medium'):
        with pytest.raises(ValueError, match='xx_small or a list with a list for each'):
            MMPretrainBackbone(dict(type='MobileViT', arch=wrong))
    with pytest.raises(ValueError, match=r"small_050, large, got \{'depths'"):
        zoo_class('MobileNetV3')(arch=dict(depths=[1]))


def test_the_checkpoints_of_a_class_are_those_of_with_cp():
    arguments = dict(type='DenseNet', **NETS['DenseNet'][0])
    net = MMPretrainBackbone(dict(**arguments, memory_efficient=True)).train()
    net(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    counters = [b for n, b in net.named_buffers() if n.endswith('num_batches_tracked')]
    assert {int(counter) for counter in counters} == {1}
    assert any('forward' in vars(module) for module in net.modules())


def check_numbers(name: str, indices: tuple[int, ...]) -> None:
    if name == 'Conformer':
        # Its class has no maps to compare with.
        return
    net = build(name, out_indices=indices).eval()
    host = host_of(name, indices)
    assert not host.load_state_dict(net.state_dict(), strict=False).unexpected_keys
    host.eval()
    x = image(net)
    right, bottom = (-side % net._sizes.multiple for side in (x.shape[3], x.shape[2]))
    with torch.no_grad():
        outputs = host(functional.pad(x, (0, right, 0, bottom)))
        if len(outputs) > len(indices):
            outputs = [outputs[index] for index in indices]
        for mine, theirs in zip(net(x), outputs, strict=True):
            torch.testing.assert_close(
                mine,
                theirs[..., : mine.shape[2], : mine.shape[3]],
                rtol=0,
                atol=0,
                msg=f'{name} {indices}',
            )


def check_training(net: MMPretrainBackbone) -> None:
    net.init_weights()
    twin = copy.deepcopy(net).train()
    x = image(net)
    torch.manual_seed(1)
    sum(output.square().mean() for output in twin(x)).backward()
    assert [
        n for n, p in twin.named_parameters() if p.requires_grad and p.grad is None
    ] == []
    assert all(p.grad is None for p in net.parameters())


def check_size(net: MMPretrainBackbone) -> None:
    if net._sizes.fixed is not None:
        return
    with torch.no_grad():
        outputs = net.eval()(torch.rand(1, 3, 67, 75))
    for output, level in zip(outputs, net.levels, strict=True):
        cells = tuple(-(-side // level.stride) for side in (67, 75))
        assert output.shape == (1, level.channels, *cells)


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_every_class(name):
    whole = build(name)
    indices = whole.out_indices
    # All levels, without the last one, only one of the middle.
    choices = {indices, indices[:-1] or indices, indices[len(indices) // 2 :][:1]}
    for chosen in sorted(choices):
        check_numbers(name, chosen)
        check_training(build(name, out_indices=chosen))
    check_size(whole)
    frozen = build(name, frozen_stages=1)
    assert any(p.requires_grad for p in frozen.parameters()) or len(frozen._stages) == 2
    assert not all(p.requires_grad for p in frozen.parameters())


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_with_cp_of_every_class(name):
    plain, saving = build(name).train(), build(name, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = image(plain)
    for net in (plain, saving):
        torch.manual_seed(1)
        sum(output.square().mean() for output in net(x)).backward()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[key], value, msg=key)
    for mine, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        if theirs.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    assert any('forward' in vars(module) for module in saving.modules())


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_what_families_know_is_what_a_run_finds(name):
    model = dict(type=name, **NETS[name][0])
    found = structure_of(make_spec(name, model, 3))
    named = zoo_class(name)(**NETS[name][0])
    assert named.levels == found.levels
    assert named._sizes == found.sizes


def zoo_class(name: str) -> type:
    from mmdet_backbones.registry import MODELS

    return MODELS.get(name)


@pytest.mark.slow
def test_what_chooses_without_a_gradient_is_kept():
    net = build('PyramidVig').eval()
    fixed = [n for n, p in net.named_parameters() if n.endswith('.relative_pos')]
    assert len(fixed) == 12
    host = host_of('PyramidVig', (0, 1, 2, 3))
    host.eval()
    # Of the size that decides which patches are neighbours.
    with torch.no_grad():
        for name in fixed:
            net.get_parameter(name).normal_(0, 100)
    host.load_state_dict(net.state_dict(), strict=False)
    x = image(net)
    with torch.no_grad():
        assert torch.equal(net(x)[-1], host(x)[-1])


def test_parts_that_no_level_needs_are_dropped():
    net = build('ResNet', out_strides=(8, 16)).eval()
    assert net.out_channels == (128, 256)
    assert 'layer4' not in dict(net.named_children())
    check_numbers('ResNet', (1, 2))


def test_a_class_that_returns_all_levels_is_cut_to_those_that_are_wanted():
    net = build('HRNet', out_strides=(8, 16)).train()
    assert net.out_channels == (8, 12)
    outputs = net(torch.rand(2, 3, 50, 64))
    assert [tuple(o.shape) for o in outputs] == [(2, 8, 7, 8), (2, 12, 4, 4)]
    sum(output.sum() for output in outputs).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('name', ['EfficientFormer', 'LeViT', 'TinyViT'])
def test_what_a_class_reads_in_training_only_is_kept(name):
    net = build(name).train()
    host = host_of(name, net.out_indices)
    tables = {n for n, _ in host.named_parameters() if n.endswith('attention_biases')}
    ours = dict(net.named_parameters())
    assert tables
    assert tables <= ours.keys()
    height, width = net._sizes.fixed
    sum(o.square().mean() for o in net(torch.rand(2, 3, height, width))).backward()
    assert all(ours[table].grad is not None for table in tables)


def test_a_dilated_net_has_fewer_strides():
    model = dict(type='ResNet', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    net = MMPretrainBackbone(model, out_strides=(8, 16))
    assert (net.out_indices, net.out_channels) == ((1, 3), (128, 512))
    assert [tuple(o.shape[2:]) for o in net(torch.rand(1, 3, 64, 96))] == [
        (8, 12),
        (4, 6),
    ]


def test_a_net_of_one_image_size_says_so():
    net = build('TinyViT')
    assert len(net(torch.rand(2, 3, 64, 64))) == len(net.levels)
    with pytest.raises(ValueError, match=r'images of \(64, 64\) only, got \(64, 96\)'):
        net(torch.rand(2, 3, 64, 96))


def test_names_and_classes_as_type():
    by_class = MMPretrainBackbone(dict(type=zoo.ResNet, depth=18), out_strides=(4,))
    by_name = MMPretrainBackbone(
        dict(type='mmpretrain.ResNet', depth=18), out_strides=(4,)
    )
    assert by_class.levels == by_name.levels
