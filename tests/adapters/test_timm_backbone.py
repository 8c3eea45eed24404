"""timm's nets: image sizes, options, weights and what is left out."""

import hashlib
import socket

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_backbones.adapters.timm.backbone import TIMMBackbone
from mmdet_backbones.weights import CheckpointError

# Each cuts the image into patches or windows, or bends a map to the size of another.
FREE = [
    'test_vit',
    'swin_tiny_patch4_window7_224',
    'eva02_tiny_patch14_224',
    'mobilevitv2_050',
    'convnext_atto',
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            'vit_small_patch14_dinov2',
            'vit_small_patch16_dinov3',
            'swinv2_cr_tiny_ns_224',
            'deit3_small_patch16_224',
            'xcit_nano_12_p8_224',
            'pvt_v2_b0',
            'twins_svt_small',
            'edgenext_xx_small',
            'haloregnetz_b',
        )
    ),
]


def maps_of(net, height, width, batch=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, height, width, generator=generator)
    with torch.no_grad():
        return net.eval()(x)


@pytest.mark.parametrize('name', FREE)
@pytest.mark.parametrize('size', [(64, 96), (97, 131)])
def test_any_image_size_gives_maps_of_the_size_over_the_stride(name, size):
    net = TIMMBackbone(name)
    for output, level in zip(maps_of(net, *size), net.levels, strict=True):
        rounded_up = tuple(-(-side // level.stride) for side in size)
        assert output.shape == (1, level.channels, *rounded_up)
        assert output.isfinite().all()


@pytest.mark.parametrize('name', ['test_vit', 'swin_tiny_patch4_window7_224'])
def test_at_the_size_of_its_training_a_freed_net_computes_what_timm_computes(name):
    net = TIMMBackbone(name)
    count = len(net.levels)
    plain = timm.create_model(
        name, features_only=True, out_indices=tuple(range(count))
    ).eval()
    plain.load_state_dict(net.timm_model.state_dict())
    size = plain.pretrained_cfg['input_size'][-1]
    ours = maps_of(net, size, size)
    theirs = maps_of(plain, size, size)
    if 'swin' in name:
        theirs = [output.permute(0, 3, 1, 2) for output in theirs]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'xcit_nano_12_p8_224',
        'twins_svt_small',
        'twins_pcpvt_small',
        'resnet50_clip',
        'sequencer2d_s',
        'swiftformer_xs',
    ],
)
def test_a_net_of_one_declared_size_computes_what_timm_builds_for_the_image(name):
    net = TIMMBackbone(name)
    assert net.timm_model.pretrained_cfg['fixed_input_size']
    multiple = net._sizes.multiple
    size = (96 + -96 % multiple, 160 + -160 % multiple)
    plain = timm.create_model(
        name, features_only=True, out_indices=net.out_indices, img_size=size
    ).eval()
    plain.load_state_dict(net.timm_model.state_dict())
    theirs = maps_of(plain, *size)
    if 'sequencer' in name:
        theirs = [output.permute(0, 3, 1, 2) for output in theirs]
    for ours, expected in zip(maps_of(net, *size), theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_padding_changes_nothing_but_the_border():
    net = TIMMBackbone('convnext_atto', out_strides=(8,))
    small, large = maps_of(net, 97, 131)[0], None
    x = torch.zeros(1, 3, 128, 160)
    x[..., :97, :131] = torch.rand(
        1, 3, 97, 131, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        large = net(x)[0]
    torch.testing.assert_close(small, large[..., :13, :17])


def test_a_net_of_one_size_says_so_and_takes_another_when_told():
    net = TIMMBackbone('mixer_s32_224')
    with pytest.raises(ValueError, match=r'\(224, 224\) only, got \(64, 96\)') as error:
        net(torch.rand(1, 3, 64, 96))
    assert 'img_size=(64, 96)' in str(error.value)

    net = TIMMBackbone('mixer_s32_224', img_size=(64, 96), out_strides=(32,))
    assert net.out_indices == (7,)
    assert maps_of(net, 64, 96)[0].shape == (1, 512, 2, 3)
    with pytest.raises(ValueError, match=r'img_size=\(640, 640\)'):
        TIMMBackbone('mixer_s32_224', img_size='64')


def test_maps_of_unpadded_convolutions_are_surrounded_with_zeros():
    net = TIMMBackbone('inception_v3', out_strides=(8, 16, 32))
    plain = timm.create_model('inception_v3', features_only=True, out_indices=(2, 3, 4))
    plain.load_state_dict(net.timm_model.state_dict())
    image = torch.rand(1, 3, 160, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = net.eval()(image), plain.eval()(image)
    assert [output.shape[2:] for output in ours] == [(20, 25), (10, 13), (5, 7)]
    for output, inside in zip(ours, theirs, strict=True):
        top, left = (
            (whole - part) // 2
            for whole, part in zip(output.shape[2:], inside.shape[2:], strict=True)
        )
        height, width = inside.shape[2:]
        middle = output[:, :, top : top + height, left : left + width]
        assert torch.equal(middle, inside)
        assert output.count_nonzero() == inside.count_nonzero()


def test_a_map_that_timm_cannot_extract_is_left_out():
    net = TIMMBackbone('tresnet_m')
    assert net.out_indices == (1, 2, 3, 4)
    assert net.out_strides == (4, 8, 16, 32)


def test_levels_of_broken_strides_are_not_offered():
    # The first two maps of this net are 45 and 23 high for an image of 96.
    net = TIMMBackbone('legacy_xception')
    assert net.out_indices == (2, 3, 4)
    with pytest.raises(ValueError, match='no level of stride 4'):
        TIMMBackbone('legacy_xception', out_strides=(4, 8))


@pytest.mark.parametrize(
    ('name', 'indices'),
    [
        ('pit_ti_224', (1, 2)),
        ('mobilenetv3_small_050', (1, 2)),
        ('test_vit', (2,)),
        ('efficientvim_m1', (0, 1)),
    ],
)
def test_what_no_level_needs_is_not_trained(name, indices):
    size = (224, 224) if name == 'pit_ti_224' else (64, 96)
    net = TIMMBackbone(name, out_indices=indices).train()
    sum(output.sum() for output in net(torch.rand(2, 3, *size))).backward()
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []
    whole = timm.create_model(name, num_classes=0)
    assert len(trained) < len(list(whole.parameters()))


def test_tables_that_a_net_keeps_in_eval_mode_belong_to_their_stage():
    # timm's class keeps what it reads from them, which hid them from the last stage.
    with torch.device('meta'):
        net = TIMMBackbone('efficientformer_l1')
    named = [part for s in range(len(net._stages)) for part in net.stage_modules(s)]
    held = {id(p) for part in named for p in part.parameters()}
    assert held == {id(p) for p in net.parameters()}


@pytest.mark.parametrize('name', ['mobilenetv3_small_050', 'test_vit', 'resnet18'])
def test_fewer_levels_are_the_same_maps(name):
    whole = TIMMBackbone(name)
    chosen = whole.out_indices[1:-1]
    part = TIMMBackbone(name, out_indices=chosen)
    part.load_state_dict(whole.state_dict(), strict=False)
    expected = maps_of(whole, 64, 96)[1:-1]
    for a, b in zip(maps_of(part, 64, 96), expected, strict=True):
        assert torch.equal(a, b)


def test_frozen_stages_are_the_same_whatever_levels_are_requested():
    def frozen(**levels):
        net = TIMMBackbone('resnet18', frozen_stages=2, **levels)
        return [n for n, p in net.named_parameters() if not p.requires_grad]

    assert frozen(out_strides=(8, 16, 32)) == frozen() == frozen(out_strides=(8,))
    assert {name.split('.')[1] for name in frozen()} == {
        'conv1',
        'bn1',
        'layer1',
        'layer2',
    }


def test_frozen_batch_normalisation_computes_the_same_and_is_not_trained():
    plain = TIMMBackbone('test_efficientnet')
    assert any(isinstance(m, BatchNormAct2d) for m in plain.modules())
    frozen = TIMMBackbone('test_efficientnet', norm_layer='FrozenBN')
    assert any(isinstance(m, FrozenBatchNormAct2d) for m in frozen.modules())
    missing = frozen.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == []
    for a, b in zip(maps_of(plain, 64, 64), maps_of(frozen, 64, 64), strict=True):
        torch.testing.assert_close(a, b)
    names = {n for n, _ in frozen.named_parameters()}
    assert not any('bn' in name for name in names)


def test_normalisation_of_tokens_is_frozen_too():
    plain, frozen = (
        TIMMBackbone('levit_128s', img_size=64, norm_layer=norm)
        for norm in (None, 'FrozenBN')
    )
    assert any(isinstance(m, nn.BatchNorm1d) for m in plain.modules())
    assert not any(isinstance(m, _BatchNorm) for m in frozen.modules())
    # Those that start at zero, so that a block starts as an identity, still do.
    state = plain.state_dict()
    norms = [n for n, m in plain.named_modules() if isinstance(m, nn.BatchNorm1d)]
    for name in norms:
        assert torch.equal(frozen.get_submodule(name).weight, state[f'{name}.weight'])
    assert frozen.load_state_dict(state, strict=False).missing_keys == []
    x = torch.rand(2, 3, 64, 64)
    plain.eval()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for a, b in zip(plain(x), frozen.train()(x), strict=True):
                torch.testing.assert_close(a, b)


def test_other_normalisation():
    net = TIMMBackbone('resnet18', norm_layer='groupnorm')
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert any(isinstance(m, nn.GroupNorm) for m in net.modules())


@pytest.mark.parametrize(
    ('name', 'norm_layer', 'kind'),
    [
        ('resnet18', 'BN2d', nn.BatchNorm2d),
        ('test_efficientnet', 'SyncBN', nn.SyncBatchNorm),
        ('resnet18', 'GN', nn.GroupNorm),
        ('resnet18', 'LN', nn.LayerNorm),
        ('test_vit', 'LN', nn.LayerNorm),
        ('resnet18', 'IN', nn.InstanceNorm2d),
    ],
)
def test_normalisation_by_the_names_of_mmcv(name, norm_layer, kind):
    net = TIMMBackbone(name, norm_layer=norm_layer).eval()
    found = [m for m in net.modules() if 'Norm' in type(m).__name__]
    assert found
    assert all(isinstance(m, kind) for m in found)
    maps_of(net, 64, 96)


def test_output_stride_dilates_the_deep_stages():
    net = TIMMBackbone('resnet18', output_stride=16)
    assert net.out_strides == (2, 4, 8, 16, 16)
    assert [tuple(m.shape[2:]) for m in maps_of(net, 64, 96)][-2:] == [(4, 6)] * 2
    deepest = TIMMBackbone('resnet18', output_stride=16, out_strides=(16,))
    assert deepest.out_indices == (4,)


@pytest.mark.parametrize(
    'name',
    [
        'mobilenetv3_small_050',
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                'fbnetv3_b',
                'hardcorenas_a',
                'lcnet_050',
                'mobilenetv3_large_075',
                'mobilenetv4_conv_small',
            )
        ),
    ],
)
def test_output_stride_of_nets_that_take_it_for_maps_only(name):
    with pytest.raises(TypeError, match='output_stride'):
        timm.create_model(name, output_stride=8)
    net = TIMMBackbone(name, output_stride=8)
    assert net.out_strides == (2, 4, 8, 8, 8)
    plain = timm.create_model(name, features_only=True, output_stride=8).eval()
    plain.load_state_dict(net.timm_model.state_dict())
    expected = maps_of(plain, 64, 96)
    for ours, theirs in zip(maps_of(net, 64, 96), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert TIMMBackbone(name, output_stride=8, out_strides=(8,)).out_indices == (4,)


def test_drop_path_rate_takes_effect():
    net = TIMMBackbone('test_convnext', drop_path_rate=0.9).train()
    x = torch.rand(8, 3, 64, 64)
    assert not torch.equal(net(x)[-1], net(x)[-1])


@pytest.mark.parametrize(
    ('name', 'arguments', 'error', 'message'),
    [
        ('vgg11', {'drop_path_rate': 0.1}, TypeError, 'does not take drop_path_rate'),
        ('test_vit', {'output_stride': 16}, TypeError, 'leave out output_stride'),
        ('dla34', {'output_stride': 8}, ValueError, 'leave out output_stride'),
        ('test_vit', {'norm_layer': 'nope'}, ValueError, 'leave out norm_layer'),
        ('test_vit', {'norm_layer': 'IN'}, ValueError, 'no batch normalisation'),
        ('resnet18', {'norm_layer': 'nope'}, ValueError, 'out norm_layer, or .*SyncBN'),
        ('resnet18', {'output_stride': 7}, ValueError, 'got 7: write output_stride=16'),
        ('resnet18', {'img_size': (3, 64, 96)}, ValueError, r'img_size=\(64, 96\)'),
        ('test_convnext', {'norm_layer': 'FrozenBN'}, ValueError, 'does nothing with'),
        ('resnt18', {}, ValueError, 'did you mean resnet18'),
        ('resnet18', {'frozen_stages': 5}, ValueError, 'to 4'),
        (
            'resnet18',
            {'pretrained': True, 'checkpoint_path': 'a.pth'},
            ValueError,
            'keep one of them',
        ),
    ],
)
def test_mistakes(name, arguments, error, message):
    with pytest.raises(error, match=message):
        TIMMBackbone(name, **arguments)


@pytest.mark.parametrize(
    'name',
    [
        'resnet18',
        'test_efficientnet',
        'convnext_atto',
        # Its blocks write into the list of maps that they are given.
        pytest.param('hrnet_w18_small', marks=pytest.mark.slow),
    ],
)
def test_recomputed_blocks_count_a_batch_once(name):
    net = TIMMBackbone(name, with_cp=True).train()
    plain = TIMMBackbone(name).train()
    plain.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 64, 64)
    for model in (net, plain):
        sum(output.square().mean() for output in model(x)).backward()
    for (key, a), b in zip(
        net.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), key
    for (key, a), b in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_the_last_fusion_of_hrnet_trains_what_its_levels_need(with_cp):
    net = TIMMBackbone('hrnet_w18_small', out_strides=(8, 16, 32), with_cp=with_cp)
    net.train()
    sum(o.square().mean() for o in net(torch.rand(2, 3, 64, 96))).backward()
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []
    idle = dict(net.named_parameters()).keys() - trained.keys()
    assert idle
    assert all('stage4' in name and 'fuse_layers.0' in name for name in idle)


def test_pretrained_touches_no_network_before_training_starts(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('a connection was opened')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    net = TIMMBackbone('test_resnet', pretrained=True)
    assert net.init_cfg == dict(type='Pretrained', checkpoint='timm://test_resnet')
    maps_of(net, 64, 64)


def fill_hub_cache(root, net, repository='timm/test_resnet.r160_in1k'):
    """Lay weights where the hub's client looks for downloaded ones."""
    from safetensors.torch import save_file

    folder = root / f'models--{repository.replace("/", "--")}'
    commit = hashlib.sha1(b'a commit').hexdigest()
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text(commit)
    snapshot = folder / 'snapshots' / commit
    snapshot.mkdir(parents=True)
    save_file(net.state_dict(), snapshot / 'model.safetensors')


def test_pretrained_weights_come_from_the_cache_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    source = timm.create_model('test_resnet')
    fill_hub_cache(tmp_path, source)
    net = TIMMBackbone('test_resnet', pretrained=True)
    assert not torch.equal(net.timm_model.conv1[0].weight, source.conv1[0].weight)
    net.init_weights()
    assert net.load_report.coverage == 1
    assert torch.equal(net.timm_model.conv1[0].weight, source.conv1[0].weight)


def test_an_unknown_tag_names_those_there_are():
    net = TIMMBackbone('resnet18', init_cfg=dict(
        type='Pretrained', checkpoint='timm://resnet18.nope'
    ))  # fmt: skip
    with pytest.raises(CheckpointError, match=r'timm://resnet18\.a1_in1k'):
        net.init_weights()


def test_checkpoint_path_is_loaded_when_training_starts(tmp_path):
    source = timm.create_model('test_vit')
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    net = TIMMBackbone('test_vit', checkpoint_path=str(tmp_path / 'vit.pth'))
    net.init_weights()
    assert net.load_report.coverage == 1
    key = 'blocks.0.attn.qkv.weight'
    loaded = net.timm_model.model.state_dict()[key]
    assert torch.equal(loaded, source.state_dict()[key])
