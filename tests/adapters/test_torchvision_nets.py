"""torchvision's nets as backbones: weights, and rules for every one of them."""

import pytest
import torch
from mmdet.registry import MODELS
from torchvision import models

from mmdet_backbones.adapters.torchvision.backbone import TorchvisionBackbone
from mmdet_backbones.adapters.torchvision.graph import trace
from mmdet_backbones.adapters.torchvision.nets import build, list_models
from mmdet_backbones.levels import IMAGENET
from mmdet_backbones.shapes.build import on_meta
from mmdet_backbones.weights import PretrainedWeightsError

# The smallest net of every family.
FAMILIES = (
    'alexnet',
    'convnext_tiny',
    'densenet121',
    'efficientnet_b0',
    'efficientnet_v2_s',
    'googlenet',
    'inception_v3',
    'maxvit_t',
    'mnasnet0_5',
    'mobilenet_v2',
    'mobilenet_v3_small',
    'regnet_y_400mf',
    'resnet18',
    'shufflenet_v2_x0_5',
    'squeezenet1_1',
    'swin_t',
    'swin_v2_t',
    'vgg11_bn',
    'vit_b_32',
)
WITHOUT_BLOCKS = {'alexnet', 'vgg11_bn'}
every_net = pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name, marks=pytest.mark.slow if name in FAMILIES else pytest.mark.exhaustive
        )
        for name in list_models()
    ],
)


def image(height=64, width=96, batch=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


@pytest.mark.parametrize('name', ['resnet18', 'mobilenet_v3_small', 'swin_t'])
def test_checkpoints_of_torchvision_load_whole(name, tmp_path):
    path = tmp_path / 'net.pth'
    state_dict = models.get_model(name, weights=None).state_dict()
    torch.save(state_dict, path)
    net = MODELS.build(
        dict(
            type='mmdet_backbones.TorchvisionBackbone',
            model_name=name,
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
    )
    net.init_weights()
    report = net.load_report
    assert report.coverage == 1
    assert report.missing == report.unexpected == report.mismatched == ()
    assert report.heads > 0
    for key, value in net.body.state_dict().items():
        assert torch.equal(value, state_dict[key])


def test_checkpoints_of_torchvision_detectors_load(tmp_path):
    path = tmp_path / 'detector.pth'
    keys = models.resnet18().state_dict()
    keys = {k: v for k, v in keys.items() if not k.startswith('fc.')}
    torch.save({f'backbone.body.{key}': value for key, value in keys.items()}, path)
    cfg = dict(type='Pretrained', checkpoint=str(path))
    net = TorchvisionBackbone('resnet18', init_cfg=cfg)
    net.init_weights()
    assert net.load_report.coverage == 1
    assert torch.equal(net.body.conv1.weight, keys['conv1.weight'])


def test_checkpoints_of_another_net_are_refused(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(models.mobilenet_v3_small().state_dict(), path)
    cfg = dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(PretrainedWeightsError, match='looks like a MobileNetV3'):
        TorchvisionBackbone('resnet18', init_cfg=cfg).init_weights()


def test_preprocess_is_that_of_the_weights():
    assert TorchvisionBackbone('resnet18').preprocess == IMAGENET


@pytest.mark.slow
def test_importing_the_adapter_does_not_import_the_models(run_python):
    code = (
        'import sys\n'
        'import mmdet_backbones.adapters.torchvision.backbone\n'
        'from mmdet_backbones.registry import MODELS\n'
        "assert MODELS.get('TorchvisionBackbone') is not None\n"
        'ours = [n for n in sys.modules if n.startswith("mmdet_backbones.adapters")]\n'
        'print([n for n in ours if n.endswith((".nets", ".graph", ".structure"))])\n'
    )
    result = run_python('-c', code)
    assert result.returncode == 0, result.stderr
    assert 'torchvision' not in result.stdout


@every_net
def test_every_net_on_the_meta_device(name):
    with torch.device('meta'):
        net = TorchvisionBackbone(name).train()
        x = image(97, 131)
        outputs = net(x)
        sum(output.sum() for output in outputs).backward()
    for output, level in zip(outputs, net.levels, strict=True):
        size = [-(-side // level.stride) for side in x.shape[2:]]
        assert list(output.shape) == [2, level.channels, *size]
    strides = net.out_strides
    assert list(strides) == sorted(strides)
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    named = [part for s in range(len(net._stages)) for part in net.stage_modules(s)]
    held = {id(p) for m in named for p in getattr(m, 'parameters', lambda m=m: [m])()}
    assert held == {id(p) for p in net.parameters()}


@every_net
def test_every_net_has_one_graph_for_both_modes(name):
    def described(graph):
        return [(n.op, str(n.target), str(n.args), str(n.kwargs)) for n in graph.nodes]

    net = on_meta(lambda: build(name))
    training, evaluating = (trace(net.train(mode))[0] for mode in (True, False))
    assert described(training) == described(evaluating)


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_one_net_of_every_family_trains(name):
    with_cp = name not in WITHOUT_BLOCKS
    net = TorchvisionBackbone(name, with_cp=with_cp, frozen_stages=0).train()
    outputs = net(image(96, 128))
    for output, level in zip(outputs, net.levels, strict=True):
        size = [-(-side // level.stride) for side in (96, 128)]
        assert list(output.shape) == [2, level.channels, *size]
    sum(output.square().mean() for output in outputs).backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key
