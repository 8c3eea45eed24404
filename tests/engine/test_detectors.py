"""mmdet's own detectors with our backbones, on operators served without compiling."""

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

DETECTORS = {
    'Faster R-CNN, Res2Net': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        dict(type='mmdet_backbones.Res2Net', depth=50, frozen_stages=1),
        [256, 512, 1024, 2048],
    ),
    'Cascade R-CNN, Res2Net v1b': (
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
        dict(type='mmdet_backbones.Res2Net', deep_stem=True, avg_down=True),
        [256, 512, 1024, 2048],
    ),
    'RetinaNet, timm ResNet-18': (
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        dict(
            type='mmdet_backbones.TIMMBackbone',
            model_name='resnet18',
            out_strides=(4, 8, 16, 32),
            norm_eval=True,
        ),
        [64, 128, 256, 512],
    ),
    'YOLOX, timm EfficientNet-Lite0': (
        'yolox/yolox_tiny_8xb8-300e_coco.py',
        dict(
            type='mmdet_backbones.TIMMBackbone',
            model_name='tf_efficientnet_lite0',
            out_strides=(8, 16, 32),
        ),
        [40, 112, 320],
    ),
}


LONG = ('Cascade R-CNN, Res2Net v1b',)


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in DETECTORS],
)
def test_loss_backward_and_predict(name):
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules()
    # YOLOX's multi-scale training asks for the number of the iteration.
    MessageHub.get_current_instance().update_info('iter', 0)
    base, backbone, in_channels = DETECTORS[name]
    path, _ = Config._get_cfg_path(f'mmdet::{base}', '')
    model = Config.fromfile(path).model
    model.backbone = backbone
    model.neck.in_channels = in_channels
    detector = MODELS.build(model)
    assert list(detector.backbone.out_channels) == in_channels

    batch = demo_mm_inputs(2, [[3, 96, 128], [3, 64, 96]], num_classes=80)
    data = detector.data_preprocessor(batch, True)
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    trained = [p for p in detector.backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)

    detector.eval()
    with torch.no_grad():
        results = detector(**detector.data_preprocessor(batch, False), mode='predict')
    assert len(results) == 2
    assert all(result.pred_instances.bboxes.shape[1] == 4 for result in results)
