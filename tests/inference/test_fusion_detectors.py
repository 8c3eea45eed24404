"""Folding batch normalisation in whole detectors and in tools/test.py."""

import copy
import pickle

import pytest
import torch
from mmengine.config import Config
from squares import SMALL, draw_squares, write_config
from test_fusion import norms_in, with_statistics
from torch import nn
from torch.utils._pytree import tree_leaves

from mmdet_backbones import fuse_for_inference


def detector_with(base: str, backbone: dict, in_channels: list[int] | int) -> nn.Module:
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.utils import register_all_modules

    register_all_modules()
    path, _ = Config._get_cfg_path(f'mmdet::{base}', '')
    model = Config.fromfile(path).model
    model.backbone = backbone
    model.neck.in_channels = in_channels
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0
    detector = DETECTORS.build(model)
    detector.init_weights()
    return with_statistics(detector)


YOLOX = (
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    dict(
        type='mmdet_backbones.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        out_strides=(8, 16, 32),
    ),
    [40, 112, 320],
)
FASTER = (
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    dict(type='mmdet_backbones.ResNet', depth=18),
    [64, 128, 256, 512],
)


# Its way to find peaks takes contiguous maps only, as mmdet has it.
CENTERNET = (
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    dict(type='mmdet_backbones.ResNet', depth=18, out_strides=(32,)),
    512,
)


@pytest.mark.parametrize(
    'given',
    [
        pytest.param(YOLOX, id='YOLOX'),
        pytest.param(FASTER, id='Faster R-CNN', marks=pytest.mark.slow),
    ],
)
def test_a_whole_detector_predicts_the_same(given):
    detector = detector_with(*given)
    batch = dict(
        inputs=[torch.randint(256, (3, 96, 128), dtype=torch.uint8)],
        data_samples=[sample((96, 128))],
    )
    fused = fuse_for_inference(detector)
    assert fused.fused.folded == norms_in(detector) > 0
    assert norms_in(fused) == 0
    predictions = []
    for net in (detector, fused):
        with torch.no_grad():
            predictions.append(net.test_step(copy.deepcopy(batch))[0].pred_instances)
    expected, found = predictions
    assert len(expected) == len(found) > 10
    assert torch.equal(expected.labels, found.labels)
    assert torch.allclose(expected.scores, found.scores, atol=1e-4)
    assert torch.allclose(expected.bboxes, found.bboxes, atol=1e-2)
    with pytest.raises(RuntimeError, match='was folded for inference'):
        fused.train()


@pytest.mark.parametrize('given', [YOLOX, CENTERNET], ids=['YOLOX', 'CenterNet'])
def test_channels_last_computes_the_same(given):
    detector = detector_with(*given)
    image = torch.randn(1, 3, 96, 128)
    last = copy.deepcopy(detector).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = (
            tree_leaves(net(image, mode='tensor')) for net in (detector, last)
        )
        predicted = last(image, [sample((96, 128))], mode='predict')
    assert len(expected) == len(found) > 2
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert len(predicted[0].pred_instances) > 10


def sample(size: tuple[int, int]):
    from mmdet.structures import DetDataSample

    info = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), size)
    info |= dict(batch_input_shape=size, border=[0, size[0], 0, size[1]])
    return DetDataSample(metainfo=dict(img_id=0, scale_factor=(1.0, 1.0), **info))


@pytest.fixture
def trees(tmp_path):
    return write_config(tmp_path / 'squares.py', draw_squares(tmp_path))


@pytest.mark.slow
def test_the_flag_of_the_test_tool(run_tool, trees, tmp_path):
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.utils import register_all_modules

    register_all_modules()
    detector = with_statistics(DETECTORS.build(Config.fromfile(trees).model))
    checkpoint = tmp_path / 'random.pth'
    torch.save(dict(state_dict=detector.state_dict(), meta={}), checkpoint)
    command = ['tools/test.py', str(trees), str(checkpoint), '--cfg-options', *SMALL]
    command += ['model.test_cfg.score_thr=0.0', '--work-dir', str(tmp_path / 'work')]
    found = []
    for flags in ([], ['--fuse'], ['--fast']):
        out = tmp_path / f'out{len(found)}.pkl'
        done = run_tool(*command, '--out', str(out), *flags)
        assert not done.returncode, done.stderr
        found.append(pickle.loads(out.read_bytes()))
    logs = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert logs.count('Folded ') == 2
    assert logs.count('no GPU, so in float32') == (not torch.cuda.is_available())
    for images in zip(*found, strict=True):
        plain, *others = (image['pred_instances']['scores'] for image in images)
        for folded in others:
            assert len(plain) == len(folded) > 10
            assert torch.allclose(plain, folded, atol=1e-4)


def test_compiling_alone_is_a_mistake(run_tool, trees, tmp_path):
    checkpoint = tmp_path / 'empty.pth'
    torch.save({}, checkpoint)
    work = str(tmp_path / 'work')
    done = run_tool(
        'tools/test.py', str(trees), str(checkpoint), '--compile', '--work-dir', work
    )
    assert done.returncode == 1
    assert 'write --fuse --compile' in done.stderr
