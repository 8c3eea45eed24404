"""Configs and checkpoints that version 0.1.0 wrote mean the same today.

``tests/data/version_0_1_0`` holds what it wrote: configs by its
tools/swap_backbone.py, and checkpoints of small backbones as mmengine saves them, each
with an image and the maps that the net gave for it.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.engine.layer_decay import LayerDecayConstructor
from mmdet_backbones.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmdet_backbones.shapes.build import build_weightless

DATA = Path(__file__).parents[1] / 'data' / 'version_0_1_0'
CHECKPOINTS = sorted(path.name for path in DATA.glob('*.pth'))
# The strides of the maps that the heads get, and the class of the backbone.
CONFIGS = {
    'faster-rcnn_res2net50.py': ('Res2Net', 'FPN'),
    'retinanet_vit.py': ('TIMMBackbone', 'SimpleFeaturePyramid'),
    'yolox_shufflenet.py': ('ShuffleNetV2', 'YOLOXPAFPN'),
}


def test_all_files_are_tested():
    assert sorted(path.name for path in DATA.glob('*.py')) == sorted(CONFIGS)
    assert CHECKPOINTS == [
        'mmpretrain.pth',
        'resnet.pth',
        'timm.pth',
        'torchvision.pth',
    ]


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_builds_the_same_detector(name):
    config = read_by_name(str(DATA / name))
    init_default_scope('mmdet')
    detector = build_weightless(config.model)
    backbone, neck = CONFIGS[name]
    assert type(detector.backbone).__name__ == backbone
    assert type(detector.neck).__name__ == neck
    channels = config.model.neck.in_channels
    wanted = [channels] if isinstance(channels, int) else list(channels)
    assert list(detector.backbone.out_channels) == wanted


def test_its_optimiser_is_known():
    config = read_by_name(str(DATA / 'retinanet_vit.py'))
    name = config.optim_wrapper.constructor
    assert OPTIM_WRAPPER_CONSTRUCTORS.get(name) is LayerDecayConstructor


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_a_checkpoint_gives_the_same_maps(name):
    path = DATA / name
    saved = torch.load(path, weights_only=True)
    text = saved['meta']['cfg']
    config = Config.fromstring(text, '.py').model.backbone
    pretrained = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    net = MODELS.build({**config, 'init_cfg': pretrained})
    net.init_weights()
    assert net.load_report.coverage == 1
    assert maps_of(net, saved)
    # As a detector that resumes, or is tested, loads it.
    strict = MODELS.build(config)
    state = {k.removeprefix('backbone.'): v for k, v in saved['state_dict'].items()}
    strict.load_state_dict(state, strict=True)
    assert maps_of(strict, saved)


def maps_of(net: torch.nn.Module, saved: dict) -> bool:
    with torch.no_grad():
        found = net.eval()(saved['image'])
    torch.testing.assert_close(list(found), saved['maps'], rtol=1e-4, atol=1e-4)
    return len(found) == len(saved['maps']) > 0
