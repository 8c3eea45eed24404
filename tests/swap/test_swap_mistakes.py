"""What the swap tells a user who mistyped, and what it never does."""

from pathlib import Path

import pytest

from mmdet_backbones.detector_config.text import render
from mmdet_backbones.swap.swapping import SwapOptions, save, swap_backbone

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
YOLOV3 = 'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py'
SSD = 'mmdet::ssd/ssd300_coco.py'
TOOL = 'tools/swap_backbone.py'


def refused(base: str, name: str, out: Path = Path('nowhere.py'), **order) -> str:
    with pytest.raises(ValueError, match=r'\w') as caught:
        swap_backbone(SwapOptions(base, name, out, **order))
    return str(caught.value)


def test_unknown_base_and_unknown_name_are_told_together():
    told = refused('mmdet::fastr_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'timm/resnet19')
    assert 'Nearest: mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py' in told
    assert 'Nearest: timm/resnet18' in told


def test_an_unknown_path_names_the_nearest(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    told = refused('configs/yolox/yolox_efficientnet_trees.py', 'timm/resnet18')
    assert 'configs/yolox/yolox_efficientnet-lite0_trees.py' in told


def test_strides_that_are_not_there_are_listed():
    told = refused(YOLOV3, 'timm/resnet18', strides=(8, 64))
    assert 'no level of stride 64' in told
    assert '4 (512 channels, stride 32)' in told
    assert '--strides 2 4 8 16 32' in told
    assert 'YOLOV3Neck takes 3 levels' in told


def test_strides_that_the_heads_are_not_made_for():
    told = refused(SSD, 'timm/resnet18', strides=(16, 32))
    assert 'made for the strides (8, 16)' in told


def test_levels_that_a_neck_cannot_do_without():
    told = refused(YOLOV3, 'mmpretrain/swin-tiny', strides=(4, 4, 8))
    assert 'names each stride once, shallow to deep' in told


def test_an_unknown_neck_lists_the_known_rules(tmp_path):
    base = tmp_path / 'base.py'
    base.write_text(f"_base_ = {FASTER!r}\nmodel = dict(neck=dict(type='MyNeck'))\n")
    told = refused(str(base), 'timm/resnet18')
    assert "no rule for the neck 'MyNeck'" in told
    assert 'FPN, PAFPN' in told
    assert 'register_neck_rule' in told


@pytest.mark.parametrize(
    ('base', 'words'),
    [
        ('mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco.py', 'DetectoRS_ResNet'),
        ('mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py', 'TridentResNet'),
        (
            'mmdet::soft_teacher/'
            'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.01-coco.py',
            'model.detector',
        ),
    ],
)
def test_detectors_that_take_no_other_backbone_say_why(base, words):
    assert words in refused(base, 'timm/resnet18')


def test_a_net_for_images_of_one_size_is_refused():
    told = refused(FASTER, 'timm/beit_base_patch16_224')
    assert 'images of 224 x 224 only' in told


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path):
    out = tmp_path / 'mine.py'
    out.write_text('# mine\n')
    order = SwapOptions(FASTER, 'timm/resnet18', out)
    with pytest.raises(ValueError, match='is there already: write --force'):
        save(order)
    assert out.read_text() == '# mine\n'
    save(SwapOptions(FASTER, 'timm/resnet18', out, force=True))
    assert '_base_' in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ['mine.py']
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_tool_prints_with_dry_run_and_writes_without(run_tool, tmp_path):
    out = tmp_path / 'new' / 'swapped.py'
    done = run_tool(TOOL, FASTER, 'timm/resnet18', '-o', str(out), '--dry-run')
    assert done.returncode == 0
    assert done.stdout.startswith('# timm/resnet18 in the detector of mmdet::faster')
    assert f'#   mmdet-backbones train {out}\n' in done.stdout
    assert not out.exists()
    written = run_tool(TOOL, FASTER, 'timm/resnet18', '-o', str(out))
    assert written.returncode == 0
    assert written.stdout.endswith(f'\npython tools/train.py {out}\n')
    assert out.read_text() == done.stdout


def test_the_tool_tells_mistakes_in_one_message(run_tool, tmp_path):
    done = run_tool(
        TOOL, FASTER, 'timm/resnet19', '-o', str(tmp_path / 'x.yaml'),
        '--num-classes', '0', '--checkpoint', 'nowhere.pth',
    )  # fmt: skip
    assert done.returncode == 1
    for words in ('4 things', 'resnet19', 'end in .py', '--num-classes', 'nowhere.pth'):
        assert words in done.stderr


def test_values_are_written_as_they_are_read():
    value = dict(
        a=[1, (2,), 'x' * 30],
        b={'not a word': dict(c=None, d='y' * 40)},
        e=tuple(range(40)),
        f=[],
    )
    assert eval(render(value)) == value
    assert max(map(len, render(value).splitlines())) <= 88
