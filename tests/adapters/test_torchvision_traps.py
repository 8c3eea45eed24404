"""What users of torchvision's extractor fall into: its behaviour, then ours."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from mmdet_backbones.adapters.torchvision.backbone import TorchvisionBackbone
from mmdet_backbones.adapters.torchvision.structure import structure_of

PAFPN = dict(
    type='mmdet.YOLOXPAFPN',
    out_channels=32,
    num_csp_blocks=1,
)


def image(height=64, width=96, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, height, width, generator=generator)


def gradless(net, outputs):
    sum(output.sum() for output in outputs).backward()
    return [name for name, p in net.named_parameters() if p.grad is None]


def load(net, state_dict, tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(state_dict, path)
    net.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    net.init_weights()
    return net.load_report


@pytest.mark.slow
def test_published_vit_files_are_older_than_the_class(tmp_path):
    old = {}
    for key, value in models.vit_b_32().state_dict().items():
        for number, name in (('0', 'linear_1'), ('3', 'linear_2')):
            key = key.replace(f'.mlp.{number}.', f'.mlp.{name}.')
        old[key] = value
    # torchvision's class renames its keys, but only if it loads them itself.
    models.vit_b_32().load_state_dict(dict(old))
    missing = models.vit_b_32().state_dict().keys() - old.keys()
    assert len(missing) == 48

    net = TorchvisionBackbone('vit_b_32')
    report = load(net, old, tmp_path)
    assert report.coverage == 1
    assert report.missing == ()
    name = 'encoder.layers.encoder_layer_7.mlp'
    assert torch.equal(
        net.body.get_parameter(f'{name}.3.weight'), old[f'{name}.linear_2.weight']
    )


@pytest.mark.slow
def test_published_densenet_files_are_older_than_the_class(tmp_path):
    state_dict = models.densenet121().state_dict()
    kinds = ('norm1', 'norm2', 'conv1', 'conv2')
    old = {}
    for key, value in state_dict.items():
        for kind in kinds if 'denselayer' in key else ():
            key = key.replace(f'.{kind}.', f'.{kind[:-1]}.{kind[-1]}.')
        old[key] = value
    missing, _ = models.densenet121().load_state_dict(old, strict=False)
    assert len(missing) > 500

    report = load(TorchvisionBackbone('densenet121'), old, tmp_path)
    assert report.coverage == 1
    assert report.missing == ()


def test_maps_have_their_channels_second():
    with torch.device('meta'):
        theirs = create_feature_extractor(models.swin_t(), ['features.1'])
        assert theirs(image())['features.1'].shape == (2, 16, 24, 96)

        ours = TorchvisionBackbone('swin_t', return_nodes=['features.1'])
        assert ours(image())[0].shape == (2, 96, 16, 24)


def test_inner_nodes_of_a_convnext_have_their_channels_second():
    nodes = ['features.1.0.block.3', 'features.1']
    ours = TorchvisionBackbone('convnext_tiny', return_nodes=nodes).eval()
    assert [tuple(o.shape) for o in ours(image())] == [
        (2, 384, 16, 24),
        (2, 96, 16, 24),
    ]


@pytest.mark.parametrize(
    ('name', 'node', 'error'),
    [
        ('vit_b_32', 'encoder.layers.encoder_layer_0', AssertionError),
        pytest.param('maxvit_t', 'blocks.0', RuntimeError, marks=pytest.mark.slow),
    ],
)
def test_images_of_any_size(name, node, error):
    with torch.device('meta'):
        theirs = create_feature_extractor(models.get_model(name).eval(), [node])
        with pytest.raises(error):
            theirs(image(75, 100))

        ours = TorchvisionBackbone(name, return_nodes=[node]).eval()
        (output,) = ours(image(75, 100))
    stride = ours.out_strides[0]
    assert output.shape[2:] == (-(-75 // stride), -(-100 // stride))


@pytest.mark.parametrize(
    'name',
    [
        'squeezenet1_1',
        pytest.param('alexnet', marks=pytest.mark.slow),
        pytest.param('inception_v3', marks=pytest.mark.slow),
    ],
)
def test_maps_of_unpadded_convolutions_fit_a_neck(name):
    strides = [feature.map.stride for feature in structure_of(name).features[-3:]]
    ours = TorchvisionBackbone(name, out_strides=strides).eval()
    channels = list(ours.out_channels)
    neck = MODELS.build({**PAFPN, 'in_channels': channels}).eval()

    arguments = dict(init_weights=False) if name == 'inception_v3' else {}
    net = models.get_model(name, weights=None, **arguments).eval()
    theirs = create_feature_extractor(
        net, list(ours.return_nodes), suppress_diff_warning=True
    )
    x = image(160, 224, batch=1)
    with pytest.raises(RuntimeError, match='Expected size'), torch.no_grad():
        neck(tuple(theirs(x).values()))

    with torch.no_grad():
        outputs = neck(ours(x))
    expected = [(-(-160 // stride), -(-224 // stride)) for stride in strides]
    assert [tuple(output.shape[2:]) for output in outputs] == expected


def test_inception_weights_expect_another_normalisation():
    arguments = dict(aux_logits=False, init_weights=False)
    theirs = models.googlenet(transform_input=True, **arguments).eval()
    ours = TorchvisionBackbone('googlenet', out_strides=(8,)).eval()
    ours.body.load_state_dict(
        {k: theirs.state_dict()[k] for k in ours.body.state_dict()}
    )
    pixels = torch.rand(1, 3, 64, 96) * 255

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
            :, None, None
        ]

    imagenet = normalised((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    node = next(iter(ours.return_nodes))
    with torch.no_grad():
        expected = create_feature_extractor(theirs, [node])(imagenet)[node]
        (mine,) = ours(normalised(ours.preprocess.mean, ours.preprocess.std))
    torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5)
    assert ours.preprocess.channel_order == 'rgb'


def test_blocks_behind_the_last_level_are_gone():
    node = 'encoder.layers.encoder_layer_1'
    with torch.device('meta'):
        theirs = create_feature_extractor(models.vit_b_32(), [node]).train()
        without = gradless(theirs, theirs(image(224, 224)).values())
    # An assertion about the shape of its input keeps every block before the last.
    assert any('encoder_layer_10' in name for name in without)

    with torch.device('meta'):
        ours = TorchvisionBackbone('vit_b_32', return_nodes=[node]).train()
        assert gradless(ours, ours(image())) == []
    assert not [n for n, _ in ours.named_parameters() if 'encoder_layer_2' in n]


def test_freezing_happens_before_training():
    ours = TorchvisionBackbone('swin_t', frozen_stages=1, out_strides=(4, 8))
    frozen = [n for n, p in ours.named_parameters() if not p.requires_grad]
    assert frozen
    assert gradless(ours, ours.train()(image())) == frozen


def test_statistics_of_frozen_stages_stay():
    theirs = create_feature_extractor(models.resnet18(), ['layer2'])
    theirs.conv1.requires_grad_(False)
    theirs.bn1.requires_grad_(False).eval()
    theirs.train()
    theirs(image())
    assert theirs.bn1.running_mean.abs().sum() > 0

    ours = TorchvisionBackbone('resnet18', frozen_stages=1, out_strides=(8,)).train()
    ours(image())
    assert ours.body.bn1.running_mean.abs().sum() == 0
    block = getattr(ours.body.layer1, '0')
    assert block.bn1.running_mean.abs().sum() == 0
    assert getattr(ours.body.layer2, '0').bn1.running_mean.abs().sum() > 0


def test_a_recomputed_batch_counts_once():
    from torch.utils.checkpoint import checkpoint

    theirs = models.resnet18().layer1.train()
    x = torch.randn(2, 64, 16, 24, requires_grad=True)
    checkpoint(theirs, x, use_reentrant=False).sum().backward()
    assert theirs[0].bn1.num_batches_tracked == 2

    ours = TorchvisionBackbone('resnet18', with_cp=True).train()
    sum(output.sum() for output in ours(image())).backward()
    counters = [b for n, b in ours.named_buffers() if n.endswith('_tracked')]
    assert len(counters) == 20
    assert all(counter == 1 for counter in counters)


def test_an_output_is_not_overwritten_by_a_later_layer():
    net = models.resnet18().eval()
    with torch.no_grad():
        expected = net.bn1(net.conv1(image()))
        theirs = create_feature_extractor(net, ['bn1', 'layer1'])(image())['bn1']
    assert theirs.min() == 0 > expected.min()

    ours = TorchvisionBackbone('resnet18', return_nodes=['bn1', 'layer1']).eval()
    ours.body.load_state_dict({k: net.state_dict()[k] for k in ours.body.state_dict()})
    with torch.no_grad():
        assert torch.equal(ours(image())[0], expected)


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', refuse)
    net = TorchvisionBackbone('mobilenet_v3_small')
    net.init_weights()
    assert net.preprocess.mean[0] == 123.675
    assert isinstance(net.body, nn.Module)
