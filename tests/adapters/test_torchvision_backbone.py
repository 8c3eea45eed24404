"""torchvision's nets as backbones: levels, nodes and the values of their maps."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from mmdet_backbones.adapters.torchvision.backbone import TorchvisionBackbone
from mmdet_backbones.adapters.torchvision.nets import build
from mmdet_backbones.adapters.torchvision.structure import structure_of
from mmdet_backbones.shapes.build import on_meta

# Small ones, each of another kind: residual, plain, NHWC, tokens, padded windows.
FEW = (
    'resnet18',
    'vgg11_bn',
    'swin_t',
    'vit_b_32',
    pytest.param('maxvit_t', marks=pytest.mark.slow),
)


def image(height=64, width=96, batch=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


def host(name, nodes, **arguments):
    """A net of torchvision's own, its state and its extractor for some nodes."""
    net = models.get_model(name, weights=None, **arguments).eval()
    return net.state_dict(), create_feature_extractor(net, list(nodes))


def load(backbone, state_dict):
    kept = backbone.body.state_dict()
    backbone.body.load_state_dict({key: state_dict[key] for key in kept})


@pytest.mark.parametrize(
    ('name', 'channels', 'nodes'),
    [
        ('vgg16_bn', (256, 512, 512, 512), 'features.22 .32 .42 .43'),
        ('resnet50', (256, 512, 1024, 2048), 'layer1 layer2 layer3 layer4'),
        ('efficientnet_b0', (24, 40, 112, 1280), 'features.2 .3 .5 .8'),
        ('mobilenet_v3_large', (24, 40, 112, 960), 'features.3 .6 .12 .16'),
        ('swin_t', (96, 192, 384, 768), 'features.1 .3 .5 permute'),
        ('convnext_tiny', (96, 192, 384, 768), 'features.1 .3 .5 .7'),
        pytest.param(
            'regnet_y_400mf',
            (48, 104, 208, 440),
            'trunk_output.block1 .block2 .block3 .block4',
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'densenet121',
            (256, 512, 1024, 1024),
            'features.denseblock1 .denseblock2 .denseblock3 .norm5',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_levels_by_stride(name, channels, nodes):
    with torch.device('meta'):
        net = TorchvisionBackbone(name, out_strides=(4, 8, 16, 32))
        shapes = [tuple(output.shape) for output in net(image(96, 160))]
    assert net.out_channels == channels
    sizes = [(24, 40), (12, 20), (6, 10), (3, 5)]
    assert shapes == [(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    top = nodes.split('.')[0]
    names = [n if n[0] != '.' else top + n for n in nodes.split()]
    assert list(net.return_nodes) == names


def test_levels_need_no_weights():
    before = torch.get_rng_state()
    levels = structure_of('regnet_y_128gf').features
    assert [feature.map.channels for feature in levels] == [32, 528, 1056, 2904, 7392]
    assert torch.equal(torch.get_rng_state(), before)
    net = on_meta(lambda: build('regnet_y_128gf'))
    assert {parameter.device.type for parameter in net.parameters()} == {'meta'}


def test_levels_of_a_vit_are_its_blocks():
    with torch.device('meta'):
        net = TorchvisionBackbone('vit_b_32', out_indices=(2, 5))
        shapes = [output.shape for output in net(image(50, 96))]
    assert shapes == [(2, 768, 2, 3)] * 2
    assert net.out_strides == (32, 32)
    assert list(net.return_nodes) == [
        'encoder.layers.encoder_layer_2',
        'encoder.layers.encoder_layer_5',
    ]
    assert len(net.body.encoder.layers._modules) == 6
    with torch.device('meta'):
        deepest = TorchvisionBackbone('vit_b_32', out_strides=(32,))
    assert deepest.out_indices == (11,)


@pytest.mark.parametrize(
    'name',
    [
        'resnet18',
        'mobilenet_v3_small',
        pytest.param('efficientnet_b0', marks=pytest.mark.slow),
        pytest.param('convnext_tiny', marks=pytest.mark.slow),
        pytest.param('vgg11_bn', marks=pytest.mark.slow),
        pytest.param('densenet121', marks=pytest.mark.slow),
        pytest.param('googlenet', marks=pytest.mark.slow),
    ],
)
def test_outputs_are_those_of_torchvision(name):
    net = TorchvisionBackbone(name).eval()
    state_dict, theirs = host(name, net.return_nodes)
    load(net, state_dict)
    with torch.no_grad():
        expected = theirs(image())
        for mine, node in zip(net(image()), net.return_nodes, strict=True):
            assert torch.equal(mine, expected[node])


@pytest.mark.parametrize('name', ['resnet18', 'swin_t'])
def test_outputs_are_those_of_torchvision_at_odd_sizes(name):
    # Swin's patches of 4 pixels are the only thing it does not round up.
    odd = image(76, 100) if name == 'swin_t' else image(75, 101)
    net = TorchvisionBackbone(name, out_strides=(8, 16)).eval()
    state_dict, theirs = host(name, net.return_nodes)
    load(net, state_dict)
    with torch.no_grad():
        expected = theirs(odd)
        for mine, node in zip(net(odd), net.return_nodes, strict=True):
            channels_first = expected[node]
            if name == 'swin_t':
                channels_first = channels_first.permute(0, 3, 1, 2)
            assert torch.equal(mine, channels_first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'node'),
    [('vit_b_32', 'encoder.layers.encoder_layer_3'), ('maxvit_t', 'blocks.3')],
)
def test_freed_sizes_keep_the_numbers_at_the_size_of_the_class(name, node):
    net = TorchvisionBackbone(name, return_nodes=[node]).eval()
    state_dict, theirs = host(name, [node])
    load(net, state_dict)
    x = image(224, 224, batch=1)
    with torch.no_grad():
        (mine,), expected = net(x), theirs(x)[node]
    if name == 'vit_b_32':
        expected = expected[:, 1:].permute(0, 2, 1).reshape(mine.shape)
    torch.testing.assert_close(mine, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_the_whole_freed_vit_classifies_as_before():
    theirs = models.vit_b_32().eval()
    ours = build('vit_b_32').eval()
    nn.init.normal_(theirs.heads.head.weight)
    ours.load_state_dict(theirs.state_dict())
    x = image(224, 224, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize('name', FEW)
def test_sizes_of_maps_are_rounded_up(name):
    size = (33, 70)
    with torch.device('meta'):
        net = TorchvisionBackbone(name, out_indices=(0, 2)).eval()
        outputs = net(image(*size, batch=1))
    for output, level in zip(outputs, net.levels, strict=True):
        rounded = [-(-side // level.stride) for side in size]
        assert list(output.shape) == [1, level.channels, *rounded]


def test_what_is_right_of_the_image_changes_nothing_left_of_it():
    # GoogLeNet rounds down, so 70 columns are padded to 72. The map of a wider image
    # agrees where both see the same.
    net = TorchvisionBackbone('googlenet', out_strides=(8,)).eval()
    wide = image(64, 256, batch=1)
    with torch.no_grad():
        cut, whole = net(wide[..., :70])[0], net(wide)[0]
    assert cut.shape[3] == 9
    torch.testing.assert_close(cut[..., :4], whole[..., :4])


def test_named_nodes():
    net = TorchvisionBackbone(
        'efficientnet_b0', return_nodes=['features.3', 'features.4', 'features.8']
    )
    assert net.out_channels == (40, 80, 1280)
    assert net.out_strides == (8, 16, 32)
    assert net.out_indices == (0, 1, 2)


def test_named_nodes_as_a_dict():
    nodes = {'layer2': 'c3', 'layer4.0.relu': 'c5'}
    net = TorchvisionBackbone('resnet18', return_nodes=nodes).eval()
    assert net.return_nodes == nodes
    assert [tuple(o.shape) for o in net(image())] == [(2, 128, 8, 12), (2, 512, 2, 3)]
    assert 'layer4.1.conv1.weight' not in net.body.state_dict()


@pytest.mark.parametrize(
    ('nodes', 'error', 'message'),
    [
        (['layer5'], ValueError, "no node 'layer5', did you mean layer"),
        (['layer1', 'fc'], ValueError, "'fc' is no feature map"),
        (['avgpool'], ValueError, "'avgpool' is no feature map"),
        ([], ValueError, 'at least one node'),
        (['layer2', 'layer1'], ValueError, r"write return_nodes=\['layer1', 'layer2'"),
        (['layer1', 'layer1'], ValueError, r"write return_nodes=\['layer1'\]"),
        (['x'], ValueError, "'x' is no feature map"),
        ('layer1', TypeError, 'must be a list of node names or a dict'),
        ([1, 2], TypeError, 'must be a list of node names or a dict'),
    ],
)
def test_mistakes_in_named_nodes(nodes, error, message):
    with pytest.raises(error, match=message):
        TorchvisionBackbone('resnet18', return_nodes=nodes)


def test_all_mistakes_in_named_nodes_are_told_at_once():
    with pytest.raises(ValueError, match='layer7') as error:
        TorchvisionBackbone('resnet18', return_nodes=['layer7', 'lair1', 'fc'])
    assert "'lair1', did you mean layer1" in str(error.value)
    assert "'fc' is no feature map" in str(error.value)


@pytest.mark.parametrize('other', [{'out_indices': (1,)}, {'out_strides': (8,)}])
def test_named_nodes_exclude_other_choices(other):
    with pytest.raises(ValueError, match='return_nodes or one of out_indices'):
        TorchvisionBackbone('resnet18', return_nodes=['layer1'], **other)
