"""tools/visualize_levels.py: what it measures, marks, writes and refuses."""

import copy
import functools

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.registry import DefaultScope
from PIL import Image
from readable_figures import assert_readable, visible_texts

from mmdet_backbones.pictures.detector import build_detector
from mmdet_backbones.pictures.levels import LevelView, field_reach, view_levels
from mmdet_backbones.pictures.photograph import pipeline_steps, prepare
from mmdet_backbones.pictures.visualizing import (
    DrawingOptions,
    levels_figure,
    visualize,
)

TOOL = 'tools/visualize_levels.py'
YOLOX = 'configs/yolox/yolox-s_efficientnet-lite0_8xb8-300e_coco.py'
FASTER = 'configs/faster_rcnn/faster-rcnn_mobilenet-v3-large_fpn_1x_coco.py'
OTHER = 'configs/yolox/yolox_efficientnet-lite0_trees.py'
NO_NECK = 'configs/faster_rcnn/faster-rcnn_vgg16-bn_c5_1x_coco.py'


@pytest.fixture(scope='module', autouse=True)
def _metafiles_once():
    """mmengine reads a hundred of mmdet's metafiles for every base otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', functools.cache(config_utils.load))
        yield


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    """A wide picture with blobs, so that every level has something to tell."""
    rows, columns = np.mgrid[0:120, 0:200]
    waves = 127 + 60 * np.sin(columns / 9) + 60 * np.cos(rows / 7)
    noise = np.random.default_rng(0).normal(0, 12, (120, 200, 3))
    pixels = (waves[..., None] + noise).clip(0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope='module')
def yolox(photo):
    """A detector with random weights, and what it gets."""
    cfg = Config.fromfile(YOLOX)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector, _ = build_detector(cfg, None, 'cpu')
        return detector, prepare(cfg, detector, photo, 128)


def views_of(detector, photograph):
    content = photograph.picture.shape[:2]
    return view_levels(detector, photograph.inputs, content, probes=1)


def faults(views):
    return {f'{v.place} {v.number}': v.faults for v in views if v.faults}


def test_yolox_before_and_after_the_neck(yolox):
    detector, photograph = yolox
    views = views_of(detector, photograph)
    assert [(v.place, v.channels, v.stride, v.size) for v in views] == [
        ('backbone', 40, 8, (12, 16)),
        ('backbone', 112, 16, (6, 8)),
        ('backbone', 320, 32, (3, 4)),
        ('neck', 128, 8, (12, 16)),
        ('neck', 128, 16, (6, 8)),
        ('neck', 128, 32, (3, 4)),
    ]
    assert [v.declared_by for v in views] == ['the backbone'] * 3 + ['bbox_head'] * 3
    assert not faults(views)
    for view in views:
        assert view.energy.max() > view.energy.min() >= 0
        assert view.field.shape == (96, 128)


def test_the_field_grows_with_depth_and_lies_around_its_centre(yolox):
    detector, photograph = yolox
    backbone = views_of(detector, photograph)[:3]
    assert backbone[0].reach < backbone[1].reach < backbone[2].reach
    rows, columns = np.nonzero(backbone[0].field)
    row, column = backbone[0].centre
    assert abs(rows - row).max() < 48
    assert abs(columns - column).max() < 64
    # The content is 77 x 128 pixels: its middle, not that of the padded image.
    assert abs(row - 38) <= 8
    assert abs(column - 64) <= 8


def test_the_field_is_the_gradient_of_the_centre():
    class Average(torch.nn.Module):
        def forward(self, images):
            return torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2)

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Average()

        def extract_feat(self, images):
            return self.backbone(images)

    (view,) = view_levels(Detector(), torch.rand(1, 1, 16, 16), (16, 16))
    rows, columns = np.nonzero(view.field)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (6, 10)
    assert np.allclose(view.field[6:11, 6:11], 1 / 25)
    assert (view.centre, view.reach) == ((8, 8), 5)


def test_reach_is_the_square_with_nine_tenths():
    field = np.zeros((21, 31))
    field[10, 15] = 0.8
    field[10, 18] = 0.15
    field[0, 0] = 0.05
    assert field_reach(field, (10, 15)) == 7
    assert field_reach(np.zeros((4, 4)), (2, 2)) == 0


def test_a_dead_level_of_the_neck_is_found(yolox):
    detector, photograph = copy.deepcopy(yolox[0]), yolox[1]
    torch.nn.init.zeros_(detector.neck.out_convs[1].conv.weight)
    found = faults(views_of(detector, photograph))
    assert found == {'neck 1': ('DEAD: every value is zero',)}
    torch.nn.init.ones_(detector.neck.out_convs[1].bn.bias)
    found = faults(views_of(detector, photograph))
    assert found == {'neck 1': ('DEAD: the same everywhere in the image',)}
    torch.nn.init.constant_(detector.neck.out_convs[1].bn.bias, float('nan'))
    found = faults(views_of(detector, photograph))
    assert found == {'neck 1': ('DEAD: no value is finite',)}


def test_a_level_that_is_dead_inside_and_not_at_its_rim_is_found(yolox):
    detector, photograph = copy.deepcopy(yolox[0]), yolox[1]
    conv = detector.neck.out_convs[0]
    # A constant goes into the convolution, whose zero padding shows at the rim.
    detector.neck.out_convs[0] = torch.nn.Sequential(
        torch.nn.Threshold(1e9, 1.0),
        torch.nn.Conv2d(conv.conv.in_channels, 128, 3, padding=1),
    )
    found = faults(views_of(detector, photograph))
    assert found == {
        'neck 0': ('DEAD in its middle: no pixel of the image changes it',)
    }


def test_a_wrong_stride_of_the_head_is_found(yolox):
    detector, photograph = yolox
    generator = detector.bbox_head.prior_generator
    right = generator.strides
    generator.strides = [(8, 8), (16, 16), (64, 64)]
    try:
        found = faults(views_of(detector, photograph))
    finally:
        generator.strides = right
    assert found == {
        'neck 2': ('WRONG STRIDE: 32 here, 64 for bbox_head, which takes it for 2 x 2',)
    }


def test_levels_of_the_wrong_stages_are_found(photo):
    """mmdet's ResNet declares no strides, so the head's count."""
    cfg = Config(
        dict(
            model=dict(
                type='YOLOX',
                backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2)),
                neck=dict(
                    type='YOLOXPAFPN', in_channels=[64, 128, 256], out_channels=32
                ),
                bbox_head=dict(
                    type='YOLOXHead', num_classes=2, in_channels=32, feat_channels=32
                ),
            )
        )
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector, weights = build_detector(cfg, None, 'cpu')
        photograph = prepare(cfg, detector, photo, 128)
        views = views_of(detector, photograph)
    assert weights == 'RANDOM weights'
    assert [v.stride for v in views[:3]] == [4, 8, 16]
    assert [v.declared_by for v in views[:3]] == ['', '', '']
    assert list(faults(views)) == ['neck 0', 'neck 1', 'neck 2']
    assert '4 here, 8 for bbox_head' in views[3].faults[0]


def test_a_detector_without_a_neck(photo, tmp_path):
    cfg = Config.fromfile(NO_NECK)
    found = visualize(cfg, DrawingOptions(photo, tmp_path / 'out.png', longest=96))
    (view,) = found.views
    assert (view.place, view.stride, view.channels) == ('backbone', 16, 512)
    assert not found.faults
    assert Image.open(found.out).width > 400


def test_faster_rcnn_as_a_user_draws_it(run_tool, photo, tmp_path):
    out = tmp_path / 'new' / 'levels.png'
    done = run_tool(
        TOOL, FASTER, str(photo), '-o', str(out), '--size', '128',
        '--cfg-options', 'model.backbone.init_cfg.checkpoint=nowhere.pth',
        'model.roi_head.bbox_head.fc_out_channels=8',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'RANDOM weights: nowhere.pth is not on this machine' in done.stdout
    assert 'neck 4' in done.stdout
    assert 'shows 9 levels' in done.stdout
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert('RGB'))
    assert pixels.shape[1] > pixels.shape[0] > 600
    assert pixels.std() > 20
    assert not list(out.parent.glob('*.partial'))
    before = out.read_bytes()
    done = run_tool(TOOL, FASTER, str(photo), '-o', str(out))
    assert done.returncode == 1
    assert 'is there already: write --force, or another -o' in done.stderr
    assert out.read_bytes() == before


def test_a_checkpoint_is_loaded_and_that_of_another_detector_refused(
    run_tool, yolox, photo, tmp_path
):
    detector, _ = yolox
    weights = {k: v.clone() for k, v in detector.state_dict().items()}
    path, out = tmp_path / 'epoch_1.pth', tmp_path / 'out.png'
    weights['neck.out_convs.1.conv.weight'].zero_()
    torch.save({'state_dict': weights, 'meta': {}}, path)
    done = run_tool(TOOL, YOLOX, str(path), '-o', str(out), str(photo), '--size', '128')
    assert done.returncode == 0, done.stderr
    assert f'weights of {path}' in done.stdout
    assert 'neck 1: DEAD: every value is zero' in done.stdout
    done = run_tool(TOOL, OTHER, str(path), str(photo), '-o', str(out), '--force')
    assert done.returncode == 1
    assert "is not a checkpoint of this config's detector" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_mistakes_at_once(run_tool, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'not a picture')
    done = run_tool(
        TOOL, 'configs/no.py', 'no.pth', str(tmp_path / 'broken.png'),
        '-o', 'levels.jpg', '--device', 'cuda:99', '--size', '8',
    )  # fmt: skip
    assert done.returncode == 1
    for part in (
        "there is no config file 'configs/no.py'",
        "there is no checkpoint 'no.pth'",
        'cannot be read',
        "-o must end in .png, got 'levels.jpg'",
        "--device 'cuda:99' cannot be used here",
        '--size must be 32 pixels or more, got 8',
    ):
        assert part in done.stderr
    assert not (tmp_path / 'levels.jpg').exists()


def test_the_test_pipeline_is_followed_but_for_its_size():
    cfg = Config.fromfile(FASTER)
    steps = pipeline_steps(cfg, 400)
    assert [step['type'] for step in steps] == ['LoadImageFromFile', 'Resize', 'Pad']
    assert steps[1] == dict(type='Resize', scale=(400, 240), keep_ratio=True)
    # As it is, the image keeps what padding the preprocessor gives it.
    assert [step['type'] for step in pipeline_steps(cfg, 2000)] == [
        'LoadImageFromFile',
        'Resize',
    ]
    assert pipeline_steps(cfg, 2000)[1]['scale'] == (1333, 800)
    padding = pipeline_steps(Config.fromfile(YOLOX), 400)[-1]
    assert padding == dict(
        type='Pad', size_divisor=32, pad_val=dict(img=(114.0, 114.0, 114.0))
    )
    assert pipeline_steps(cfg, 400, fixed=(224, 192))[-1] == dict(
        type='Resize', scale=(192, 224), keep_ratio=False
    )


@pytest.mark.parametrize(
    ('size', 'neck'),
    [((120, 160), True), ((30, 200), False), ((200, 60), False)],
)
def test_texts_have_room_beside_pictures_of_any_form(size, neck):
    height, width = size
    views = [
        LevelView(
            place, number, 256, 8 << number, 'the backbone',
            np.ones((height // 8, width // 8)), np.ones(size), (9, 9),
            reach=9 * number, idle=120, faults=(fault,) * number,
        )
        for place in ('backbone', 'neck')[: 1 + neck]
        for number, fault in enumerate(('', 'a fault that takes many words ' * 4))
    ]  # fmt: skip
    notes = [f'https://a.b/{"long_name_" * 12}.pth', 'what is to be seen ' * 12]
    heading = 'Detector: ' + 'Backbone + ' * 8
    figure = levels_figure(views, np.zeros((*size, 3), np.uint8), heading, notes)
    assert_readable(figure)
    whole = ''.join(text.get_text() for text in visible_texts(figure))
    letters = ''.join(whole.split())
    for text in (heading, *notes):
        assert ''.join(text.split()) in letters
