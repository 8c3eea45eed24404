"""mmpretrain's nets under the contract: levels, numbers, names, tensors, arguments."""

import copy
import pickle

import mmpretrain.models.backbones as zoo
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from torch import nn

SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=24, depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8]),
)
# One small net of each named class, and what its class in mmpretrain is told for maps.
SMALL = {
    'shufflenet': (dict(type='ShuffleNetV2', widen_factor=0.5), {}),
    'mobilenet-v2': (dict(type='MobileNetV2', widen_factor=0.35), {}),
    'mobilenet-v3': (dict(type='MobileNetV3', arch='small_050'), {}),
    'swin': (SWIN, dict(pad_small_map=True)),
    'convnext': (
        dict(type='ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])),
        dict(gap_before_final_norm=False),
    ),
}
every = pytest.mark.parametrize('name', SMALL)


def build(model: dict, **arguments) -> nn.Module:
    named = {**model, **arguments}
    return MODELS.build({**named, 'type': f'mmdet_backbones.{model["type"]}'})


def small(name: str, **arguments) -> nn.Module:
    return build(SMALL[name][0], **arguments)


def host_of(name: str, indices: tuple[int, ...]) -> nn.Module:
    model, for_maps = copy.deepcopy(SMALL[name])
    net_class = getattr(zoo, model.pop('type'))
    return net_class(**model, **for_maps, out_indices=list(indices))


def generic(**model) -> dict:
    return dict(type='MMPretrainBackbone', model=model)


@pytest.mark.parametrize(
    ('model', 'indices', 'channels'),
    [
        (dict(type='ShuffleNetV2', widen_factor=1.0), (0, 1, 2), (116, 232, 464)),
        (dict(type='MobileNetV2', widen_factor=1.0), (2, 4, 6), (32, 96, 320)),
        (dict(type='MobileNetV3', arch='small'), (3, 8, 11), (24, 48, 96)),
        (dict(type='MobileNetV3', arch='large'), (6, 12, 15), (40, 112, 160)),
        (dict(type='SwinTransformer', arch='tiny'), (1, 2, 3), (192, 384, 768)),
        (dict(type='ConvNeXt', arch='tiny'), (1, 2, 3), (192, 384, 768)),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_strides_8_16_32(model, indices, channels):
    net = build(model, out_strides=(8, 16, 32)).eval()
    assert net.out_indices == indices
    assert net.out_channels == channels
    with torch.no_grad():
        shapes = [tuple(output.shape) for output in net(torch.rand(1, 3, 64, 96))]
    assert shapes == [
        (1, channel, 64 // stride, 96 // stride)
        for channel, stride in zip(channels, (8, 16, 32), strict=True)
    ]
    assert net.preprocess.channel_order == 'rgb'


@every
def test_numbers_and_names_are_those_of_mmpretrain(name):
    net = small(name, out_strides=(8, 16)).eval()
    host = host_of(name, net.out_indices)
    host.eval()  # returns None
    loaded = host.load_state_dict(net.state_dict(), strict=False)
    assert loaded.unexpected_keys == []
    # Only the dropped end of the net is missing.
    kept = list(net.state_dict())
    assert kept == [key for key in host.state_dict() if key in kept]
    assert len(kept) < len(small(name).state_dict())
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for mine, theirs in zip(net(x), host(x), strict=True):
            assert torch.equal(mine, theirs)


@every
def test_whole_nets_have_exactly_the_names_of_mmpretrain(name):
    net = small(name)
    assert list(net.state_dict()) == list(host_of(name, net.out_indices).state_dict())


@every
@pytest.mark.parametrize('size', [(37, 50), (33, 97)])
def test_images_of_any_size(name, size):
    net = small(name).eval()
    with torch.no_grad():
        outputs = net(torch.rand(1, 3, *size))
    for output, level in zip(outputs, net.levels, strict=True):
        cells = tuple(-(-side // level.stride) for side in size)
        assert output.shape == (1, level.channels, *cells)


@every
def test_shared_parameters_move_and_load_with_the_backbone(name):
    net = small(name).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        double = copy.deepcopy(net).to(torch.float64)(x.double())
        assert all(output.dtype == torch.float64 for output in double)
        other = small(name).eval()
        assert not torch.equal(other(x)[-1], expected[-1])
        other.load_state_dict(net.state_dict(), strict=True)
        assert torch.equal(other(x)[-1], expected[-1])
        with torch.device('meta'):
            empty = small(name)
        assert {p.device.type for p in empty.parameters()} == {'meta'}
        empty = empty.to_empty(device='cpu').eval()
        empty.load_state_dict(net.state_dict())
        assert torch.equal(empty(x)[-1], expected[-1])


@every
def test_copies_are_independent(name):
    net = small(name, with_cp=True).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            for parameter in twin.parameters():
                parameter.zero_()
            assert not torch.equal(twin(x)[-1], expected[-1])
            assert torch.equal(net(x)[-1], expected[-1])
            mine = {id(tensor) for tensor in net.state_dict(keep_vars=True).values()}
            twins = {id(tensor) for tensor in twin.state_dict(keep_vars=True).values()}
            assert not mine & twins


def test_modules_that_are_exchanged_are_run():
    net = small('shufflenet')
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(net._net.conv1.bn, nn.SyncBatchNorm)
    net.conv1 = nn.Identity()
    assert next(name for name, _ in net.named_children()) == 'conv1'
    assert net._net.conv1 is net.conv1


def test_modes_reach_the_net_itself():
    # The class of the net asks its own flag.
    net = small('swin')
    assert net.train() is net
    assert net._net.training
    assert net.eval() is net
    assert not net._net.training


@every
def test_frozen_stages_count_as_documented(name):
    stems = {
        'shufflenet': ('conv1',),
        'mobilenet-v2': ('conv1',),
        'mobilenet-v3': ('layer0',),
        'swin': ('patch_embed',),
        'convnext': ('downsample_layers.0',),
    }
    firsts = {
        'shufflenet': ('layers.0',),
        'mobilenet-v2': ('layer1',),
        'mobilenet-v3': ('layer1',),
        'swin': ('stages.0', 'norm0'),
        'convnext': ('stages.0', 'norm0'),
    }
    for stages, parts in (
        (-1, ()),
        (0, stems[name]),
        (1, (*stems[name], *firsts[name])),
    ):
        net = small(name, frozen_stages=stages)
        frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
        starts = tuple(f'{part}.' for part in parts)
        assert frozen == {
            n for n, _ in net.named_parameters() if n.startswith(starts) and starts
        }
        # The numbering does not depend on which levels are returned.
        deep = small(name, frozen_stages=stages, out_indices=net.out_indices[-1:])
        kept = {n for n, _ in deep.named_parameters()}
        assert {n for n, p in deep.named_parameters() if not p.requires_grad} == (
            frozen & kept
        )


@every
def test_with_cp_counts_a_batch_once_and_gives_the_same_gradients(name):
    plain = small(name, out_strides=(8, 16, 32)).train()
    saving = small(name, out_strides=(8, 16, 32), with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    for net in (plain, saving):
        # Stochastic depth draws the same numbers.
        torch.manual_seed(1)
        sum(output.square().mean() for output in net(x)).backward()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[key], value, msg=key)
    for mine, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert any('forward' in vars(module) for module in saving.modules())


@every
def test_weights_start_as_in_mmpretrain(name):
    class Detector(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = small(name)

    torch.manual_seed(0)
    detector = Detector()
    detector.init_weights()
    torch.manual_seed(0)
    host = host_of(name, detector.backbone.out_indices)
    host.init_weights()
    for key, value in host.state_dict().items():
        assert torch.equal(detector.backbone.state_dict()[key], value), key
    assert not any(hasattr(m, '_params_init_info') for m in detector.modules())


def test_init_cfg_is_applied_on_top():
    net = small('mobilenet-v3', init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    net.init_weights()
    assert net.layer0.conv.weight.unique().tolist() == [0.5]
    assert net.layer0.bn.weight.unique().tolist() == [1.0]


@every
def test_checkpoint_of_a_classifier(name, tmp_path):
    model, _ = SMALL[name]
    classifier = ImageClassifier(
        backbone=copy.deepcopy(model),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=8),
    )
    for value in classifier.state_dict().values():
        if value.is_floating_point():  # the rest are tables of indices and counters
            value.copy_(torch.rand_like(value))
    path = tmp_path / 'classifier.pth'
    torch.save({'state_dict': classifier.state_dict()}, path)
    checkpoint = dict(type='Pretrained', checkpoint=str(path))
    last = small(name).out_indices[-1]
    net = small(name, out_indices=(last,), init_cfg=checkpoint)
    net.init_weights()
    assert net.load_report.coverage == 1
    assert not net.load_report.unexpected
    for key, value in net.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[f'backbone.{key}']), key


@every
@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_input_channels(name, channels):
    net = small(name, in_channels=channels).eval()
    assert len(net(torch.rand(1, channels, 64, 64))) == len(net.levels)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (
            dict(type='ShuffleNetV2', widen_factor=0.75),
            r'one of \(0.5, 1.0, 1.5, 2.0\), got 0.75',
        ),
        (dict(type='MobileNetV2', widen_factor=0), 'a number above 0, got 0'),
        (dict(type='MobileNetV3', arch='big'), 'small_075, small_050, large, got'),
        (dict(type='SwinTransformer', arch='micro'), 'tiny, s, small, b, base'),
        (dict(type='ConvNeXt', arch='micro'), 'atto, femto, .*huge'),
        (generic(type='EfficientNet', arch='b99'), 'b0, b1, .*b8'),
        (generic(type='ResNet', depth=19), 'invalid depth 19'),
        (generic(type='EfficentNet'), 'did you mean EfficientNet'),
        (generic(type='TIMMBackbone', model_name='resnet18'), 'mmdet_backbones.TIMM'),
        (generic(type='TNT', arch='s'), r'gives a tensor of shape \(2, 384\)'),
        (generic(type='AlexNet'), 'none of its maps has the size'),
        (generic(type='VisionTransformer', out_type='raw'), "must be 'featmap'"),
        (generic(type='ResNet', depth=18, out_indices=(1,)), r'out_indices=\(1,\), mo'),
        (generic(type='HRNet', with_cp=True, in_channels=1), 'with_cp cannot stand'),
        (generic(type='DaViT', arch='t', frozen_stages=0), 'frozen_stages=1, model='),
        (generic(type='VAN', arch='t', frozen_stages=-1), 'frozen_stages=-1, model='),
    ],
)
def test_values_that_cannot_be(model, message):
    with pytest.raises(ValueError, match=message):
        build(model)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (dict(type='SwinTransformer', out_after_downsample=True), 'out_after_downsamp'),
        (dict(type='MobileNetV3', widen_factor=1.0), 'widen_factor'),
        (generic(type='ResNet', depth=18, deep=1), 'no argument deep. It takes depth'),
        (generic(type='RegNet'), "missing 1 required positional argument: 'arch'"),
        (generic(depth=18), 'must be a dict with type'),
    ],
)
def test_arguments_that_are_not_taken(model, message):
    with pytest.raises(TypeError, match=message):
        build(model)


def test_the_end_of_mobile_nets_can_be_had_by_its_number():
    net = small('shufflenet', out_indices=(0, 3))
    assert (net.out_channels, net.out_strides) == ((48, 1024), (8, 32))
    assert small('shufflenet', out_strides=(8, 32)).out_channels == (48, 192)


def test_the_stem_of_shufflenet_is_the_level_of_stride_4():
    net = small('shufflenet', out_strides=(4, 16)).eval()
    assert net.out_channels == (24, 96)
    x = torch.rand(1, 3, 63, 95)
    with torch.no_grad():
        stem, deeper = net(x)
        assert stem.shape[2:] == (16, 24)
        assert torch.equal(stem, net.maxpool(net.conv1(x)))
        assert torch.equal(deeper, net.layers[1](net.layers[0](stem)))
    alone = small('shufflenet', out_strides=(4,)).train()
    alone(x)[0].sum().backward()
    assert all(p.grad is not None for p in alone.parameters())
    assert small('shufflenet').out_indices == (0, 1, 2, 3)


def test_swin_tells_its_numbers():
    assert small('swin').arch_settings == SWIN['arch']
