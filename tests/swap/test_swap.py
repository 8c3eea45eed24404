"""Backbones put into mmdet's detectors, and the configs run."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_backbones.check.trial import try_config
from mmdet_backbones.swap.swapping import SwapOptions, save, swap_backbone

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
C4 = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
DC5 = 'mmdet::_base_/models/faster-rcnn_r50-caffe-dc5.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
SSD = 'mmdet::ssd/ssd300_coco.py'


@pytest.fixture
def swapped(tmp_path):
    """Swap, write and read the config."""

    def make(base: str, name: str, **order) -> Config:
        out = tmp_path / 'swapped.py'
        save(SwapOptions(base, name, out, force=True, **order))
        return Config.fromfile(out)

    return make


def runs(config: Config, size: tuple[int, int] = (128, 128)) -> None:
    trial = try_config(Path(config.filename), size)
    assert trial.loss > 0
    assert trial.idle == ()


def test_yolov3_reads_mobilenet_v3_deep_to_shallow(swapped):
    config = swapped(YOLOV3, 'mmpretrain/mobilenet-v3-small', num_classes=4)
    assert config.model.neck.in_channels == [96, 48, 24]
    assert config.model.bbox_head.num_classes == 4
    assert config.model.bbox_head.featmap_strides == [32, 16, 8]
    # YOLOv3 shows images of 0 to 1; the weights want ImageNet's mean.
    assert config.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert config.model.data_preprocessor.pad_size_divisor == 32
    runs(config)


def test_a_plain_vit_gets_a_pyramid_and_cascade_heads_their_classes(swapped):
    config = swapped(CASCADE, 'timm/vit_tiny_patch16_224', num_classes=3)
    model = config.model
    assert model.backbone.out_strides == (16,)
    assert model.neck.type == 'mmdet_backbones.SimpleFeaturePyramid'
    assert 'start_level' not in model.neck
    assert [head.num_classes for head in model.roi_head.bbox_head] == [3, 3, 3]
    # The other settings of the listed heads are the base's.
    targets = [head.bbox_coder.target_stds[0] for head in model.roi_head.bbox_head]
    assert targets == [0.1, 0.05, 0.033]
    runs(config)


def test_levels_by_stride_and_heads_that_follow(swapped):
    """ShuffleNetV2 has no level of stride 4, and two maps of stride 32."""
    config = swapped(FASTER, 'mmpretrain/shufflenet-v2-1x')
    model = config.model
    assert model.backbone.out_strides == (8, 16, 32)
    assert model.neck.in_channels == [116, 232, 464]
    assert model.rpn_head.anchor_generator.strides == [8, 16, 32, 64, 128]
    # Anchors keep their size: twice the stride, half the scale.
    assert model.rpn_head.anchor_generator.scales == [4]
    assert model.roi_head.bbox_roi_extractor.featmap_strides == [8, 16, 32, 64]
    text = Path(config.filename).read_text()
    assert 'has no level of stride 4: FPN gets 8, 16, 32' in text
    runs(config)


@pytest.mark.slow
def test_faster_rcnn_c4_gets_the_channels_of_its_shared_head(swapped):
    config = swapped(C4, 'timm/resnet18')
    assert config.model.backbone.out_strides == (16,)
    assert config.model.neck == dict(
        type='mmdet_backbones.SingleLevel', in_channels=[256], out_channels=1024
    )
    # The base reads images as BGR without division, as caffe's weights want.
    assert config.model.data_preprocessor.bgr_to_rgb is True
    runs(config)


def test_yolox_keeps_its_augmentation_and_its_padding(swapped):
    config = swapped(YOLOX, 'timm/mobilenetv2_100')
    preprocessor = config.model.data_preprocessor
    assert preprocessor.batch_augments[0].random_size_range == (320, 640)
    assert preprocessor.pad_size_divisor == 32
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert config.model.neck.in_channels == [32, 96, 320]
    runs(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('base', 'name', 'order'),
    [
        (FASTER, 'torchvision/resnet18', dict(strides=(4, 8, 16, 32))),
        (DINO, 'timm/resnet18', {}),
        (DINO, 'mmpretrain/swin-tiny', {}),
        (RTMDET, 'timm/convnext_atto', dict(num_classes=2)),
        (RETINANET, 'mmdet/ResNet-18', dict(strides=(8, 16))),
        (FCOS, 'res2net50_26w_4s', {}),
        (YOLOX, 'timm/vit_tiny_patch16_224', {}),
        (YOLOV3, 'torchvision/swin_t', {}),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'timm/resnet18', {}),
        ('mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py', 'timm/resnet18', {}),
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mmdet/PVTv2-b0', {}),
        ('mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', 'timm/resnet18', {}),
        ('mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', 'timm/resnet18', {}),
        ('mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', 'timm/resnet18', {}),
        ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 'timm/resnet18', {}),
        (
            'mmdet::nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
            'timm/resnet18',
            {},
        ),
        ('mmdet::pafpn/faster-rcnn_r50_pafpn_1x_coco.py', 'timm/resnet18', {}),
        ('mmdet::vfnet/vfnet_r50_fpn_1x_coco.py', 'mmpretrain/shufflenet-v2-1x', {}),
    ],
)
def test_more_swaps_run(swapped, base, name, order):
    runs(swapped(base, name, **order))


@pytest.mark.slow
def test_ssd_runs(swapped):
    config = swapped(SSD, 'timm/resnet18')
    assert config.model.bbox_head.in_channels == [128, 256, 512, 256, 256, 256]
    runs(config, (300, 300))


def test_dc5_heads_take_the_channels_of_the_backbone(tmp_path):
    base = tmp_path / 'dc5.py'
    base.write_text(f'_base_ = {DC5!r}\n')
    text = swap_backbone(SwapOptions(str(base), 'timm/resnet18', tmp_path / 'out.py'))
    assert 'out_strides=(16,)' in text
    assert 'rpn_head=dict(in_channels=256)' in text
    assert 'bbox_roi_extractor=dict(out_channels=256)' in text
    assert 'bbox_head=dict(in_channels=256)' in text


def test_a_patch_of_14_pixels_moves_strides_and_padding(swapped):
    config = swapped(YOLOX, 'timm/vit_small_patch14_dinov2')
    model = config.model
    assert [neck.type for neck in model.neck] == [
        'mmdet_backbones.SimpleFeaturePyramid',
        'YOLOXPAFPN',
    ]
    assert model.neck[1].in_channels == [256, 256, 256]
    assert model.bbox_head.strides == [7, 14, 28]
    assert model.data_preprocessor.pad_size_divisor == 28
    assert model.data_preprocessor.batch_augments[0].size_divisor == 28


def test_a_pyramid_gives_the_strides_that_the_heads_had(swapped):
    base = 'mmdet::hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py'
    config = swapped(base, 'timm/vit_tiny_patch16_224')
    # HRFPN of stride 2 gives 8 to 128 from 4, 8, 16 and 32.
    assert config.model.neck.scale_factors == (2, 1, 0.5)
    assert config.model.neck.num_outs == 5
    assert config.model.bbox_head.strides == [8, 16, 32, 64, 128]


def test_a_pyramid_before_another_neck(swapped):
    base = 'mmdet::libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py'
    first, second = swapped(base, 'timm/vit_tiny_patch16_224').model.neck
    assert first.type == 'mmdet_backbones.SimpleFeaturePyramid'
    assert first.scale_factors == (2, 1, 0.5)
    assert '_delete_' not in first
    assert (second.type, second.num_levels) == ('BFP', 5)


def test_a_base_of_ones_own_is_named_relatively(tmp_path):
    base = tmp_path / 'configs' / 'mine.py'
    base.parent.mkdir()
    base.write_text(
        f'_base_ = {RETINANET!r}\n'
        "custom_imports = dict(imports=['json'], allow_failed_imports=False)\n"
        "load_from = 'coco.pth'\n"
    )
    out = tmp_path / 'work' / 'swapped.py'
    save(SwapOptions(str(base), 'timm/resnet18', out))
    config = Config.fromfile(out)
    assert "_base_ = '../configs/mine.py'" in out.read_text()
    assert config.custom_imports.imports == ['json', 'mmdet_backbones']
    # The checkpoint of the base's whole detector would not fit any more.
    assert config.load_from is None
    assert config.model.backbone.type == 'mmdet_backbones.TIMMBackbone'
    assert 'depth' not in config.model.backbone


def test_a_base_without_backbone_gets_the_usual_strides(tmp_path):
    base = 'configs/_base_/models/yolox_tiny.py'
    base = str(Path(__file__).parents[2] / base)
    text = swap_backbone(SwapOptions(base, 'timm/resnet18', tmp_path / 'out.py'))
    assert 'out_strides=(8, 16, 32)' in text
    assert 'in_channels=[128, 256, 512]' in text


def test_frozen_stages_reach_the_same_stride(swapped):
    # Stage 1 of mmdet's ResNet ends at stride 4, and so does stage 2 of this net.
    frozen = swapped(RETINANET, 'timm/mobilenetv2_100').model.backbone
    assert (frozen.frozen_stages, frozen.norm_eval) == (2, True)
    vit = swapped(RETINANET, 'timm/vit_tiny_patch16_224').model.backbone
    assert 'frozen_stages' not in vit


def test_nothing_is_frozen_without_weights(swapped):
    config = swapped(RETINANET, 'res2net50_26w_4s')
    assert config.model.backbone.init_cfg is None
    assert config.model.backbone.norm_eval is False
    assert 'frozen_stages' not in config.model.backbone
    assert 'RANDOM' in Path(config.filename).read_text().replace('\n# ', ' ')


def test_weights_of_ones_own(swapped, tmp_path):
    weights = tmp_path / 'w.pth'
    weights.write_bytes(b'')
    config = swapped(RETINANET, 'res2net50_26w_4s', checkpoint=str(weights))
    assert config.model.backbone.init_cfg.checkpoint == str(weights)
    assert config.model.backbone.frozen_stages == 1


def test_mmdets_own_nets_build_no_stage_for_nothing(swapped):
    backbone = swapped(C4, 'mmdet/ResNet-18').model.backbone
    assert backbone.out_indices == (2,)
    assert (backbone.num_stages, backbone.strides) == (3, (1, 2, 2))
    assert backbone.init_cfg.checkpoint == 'torchvision://resnet18'
