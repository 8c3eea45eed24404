"""tools/compare_runs.py: real logs read, compared, written, and what is refused."""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils
from PIL import Image

from mmdet_backbones.catalog import inspection
from mmdet_backbones.commands import command
from mmdet_backbones.runs.comparing import FILES, PICTURE, compare, summarise
from mmdet_backbones.runs.costs import image_size, measure_costs
from mmdet_backbones.runs.logs import read_log
from mmdet_backbones.runs.records import read_run

TOOL = 'tools/compare_runs.py'
REAL = Path(__file__).parent / 'yolox_efficientnet-lite0_trees'
STAMP = '20261121_114808'


@pytest.fixture(scope='module', autouse=True)
def _metafiles_once():
    """mmengine reads a hundred of mmdet's metafiles for every base otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', functools.cache(config_utils.load))
        yield


def scalars(work_dir: Path, stamp: str = STAMP) -> Path:
    return work_dir / stamp / 'vis_data' / 'scalars.json'


def real_lines() -> list[str]:
    return scalars(REAL).read_text().splitlines(keepends=True)


@pytest.fixture
def copied(tmp_path):
    """The real work directory under another name, to be changed."""

    def copy(name: str, lines: list[str] | None = None, **changes: str) -> Path:
        work_dir = tmp_path / name
        shutil.copytree(REAL, work_dir)
        if lines is not None:
            scalars(work_dir).write_text(''.join(lines))
        config = scalars(work_dir).with_name('config.py')
        text = config.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        config.write_text(text)
        return work_dir

    return copy


def test_a_real_run_is_read():
    run = read_run(REAL)
    assert (run.problem, run.notes) == ('', ())
    assert run.detector == 'YOLOX'
    assert run.backbone == 'TIMMBackbone tf_efficientnet_lite0'
    assert run.metric == 'coco/bbox_mAP'
    assert run.series == ((4, 0.004), (8, 0.105), (12, 0.122))
    assert run.best == run.last == (12, 0.122)
    assert (run.unit, run.reached, run.planned) == ('epoch', 12, 12)
    # 333 logged iterations of about 1.2 s.
    assert 330 * 1.1 < run.seconds < 340 * 1.3
    assert run.memory is None
    assert run.costs.parameters == 4_736_578
    assert run.costs.size == (448, 448)
    assert run.pretrained == 'data/weights/efficientnet-lite0.pth'
    assert run.data == 'data/trees/val.json'


def test_operations_are_those_of_backbone_neck_and_head():
    cfg = Config.fromfile(scalars(REAL).with_name('config.py'))
    costs = measure_costs(cfg)
    alone = inspection.inspect_backbone('timm/tf_efficientnet_lite0', (448, 448))
    assert costs.backbone_parameters == 2_958_848
    assert costs.parts == ('backbone', 'neck', 'dense head')
    # Backbone, then 1.8 million parameters of neck and head at 56 x 56 and less.
    assert costs.flops > 2 * alone.macs
    cfg = Config.fromfile('configs/faster_rcnn/faster-rcnn_vgg16-bn_c5_1x_coco.py')
    assert measure_costs(cfg).parts == ('backbone', 'dense head')


def test_a_second_stage_is_not_counted_and_the_wide_test_image_is():
    cfg = Config.fromfile(
        'configs/faster_rcnn/faster-rcnn_mobilenet-v3-large_fpn_1x_coco.py'
    )
    assert image_size(cfg) == (800, 1344)
    cfg.test_dataloader = None
    cfg.val_dataloader.dataset.pipeline[1].scale = (320, 224)
    small = measure_costs(cfg)
    assert (small.size, small.parts[2:]) == ((224, 320), ('dense head',))
    cfg.model.roi_head.bbox_head.fc_out_channels = 8
    assert measure_costs(cfg).flops == small.flops
    assert measure_costs(cfg).parameters < small.parameters


def test_a_resumed_run_counts_from_where_it_began(copied):
    lines = real_lines()
    validations = [i for i, line in enumerate(lines) if 'coco/bbox_mAP' in line]
    # Killed in epoch 11, after validations of epochs 4 and 8; went on from epoch 4.
    work_dir = copied('resumed', lines[: validations[1] + 5])
    later = scalars(work_dir, '20261121_200000')
    shutil.copytree(scalars(work_dir).parent, later.parent)
    later.write_text(''.join(lines[validations[0] + 1 :]))
    resumed, real = read_run(work_dir), read_run(REAL)
    assert resumed.series == real.series
    assert resumed.seconds == pytest.approx(real.seconds)
    assert resumed.reached == 12


def test_a_run_without_a_validation_is_named_with_the_reason(copied, tmp_path):
    half = real_lines()[:10]
    half[-1] = half[-1][:40]
    killed, never = copied('killed', half), copied('never', [])
    empty = tmp_path / 'empty'
    empty.mkdir()
    comparison = compare([empty, killed, REAL, never])
    assert comparison.runs[0].name == REAL.name
    reasons = {run.name: run.problem for run in comparison.runs[1:]}
    assert reasons == {
        'killed': 'no validation finished: stopped in epoch 2 of 12',
        'never': 'stopped before the first iteration was logged',
        'empty': 'no work directory of a training: */vis_data/scalars.json is missing',
    }
    table = comparison.to_markdown()
    for name, reason in reasons.items():
        (row,) = re.findall(rf'^\| {name} \|.*$', table, re.MULTILINE)
        assert reason in row


def test_a_validation_alone_is_no_training(copied):
    last = [line for line in real_lines() if 'coco/bbox_mAP' in line][-1]
    run = read_run(copied('tested', [last.replace('"step": 12', '"step": 0')]))
    assert run.problem == 'only validated, not trained'


def test_a_training_by_iterations_is_not_put_at_epoch_0(copied):
    """mmengine logs the round of the data for its validations, from 0."""
    lines = [
        re.sub(r'"step": \d+', '"step": 0', line) if 'bbox_mAP' in line else line
        for line in real_lines()
    ]
    old = 'train_cfg = dict(max_epochs=12, type="EpochBasedTrainLoop", val_interval=4)'
    old = old.replace('"', "'")
    new = "train_cfg = dict(max_iters=336, type='IterBasedTrainLoop')"
    run = read_run(copied('iterations', lines, **{old: new}))
    assert (run.unit, run.planned, run.reached) == ('iteration', 336, 333)
    assert [step for step, _ in run.series] == [109, 221, 333]


def test_the_config_of_someone_else(copied):
    foreign = copied('foreign', **{'imports=[': "imports=['not_here', "})
    run = read_run(foreign)
    assert run.best == (12, 0.122)
    assert run.detector == 'YOLOX'
    assert 'not_here' in run.notes[0]
    broken = copied('broken')
    scalars(broken).with_name('config.py').write_text('model = dict(')
    run = read_run(broken)
    assert (run.best, run.detector) == ((12, 0.122), '')
    assert 'cannot be read' in run.notes[0]
    unknown = copied('unknown', **{"type='YOLOX'": "type='YOLOQ'"})
    run = read_run(unknown)
    assert (run.best, run.detector) == ((12, 0.122), 'YOLOQ')
    assert "type='YOLOQ' is not known" in run.notes[0]
    assert run.costs.parameters is None


def test_another_metric_and_one_that_is_not_there(copied):
    assert read_run(REAL, 'coco/bbox_mAP_50').best == (12, 0.436)
    problem = read_run(REAL, 'coco/segm_mAP').problem
    assert "have no finite 'coco/segm_mAP'; they have coco/bbox_mAP," in problem
    nan = [line.replace('0.122,', 'NaN,') for line in real_lines()]
    run = read_run(copied('nan', nan))
    assert (run.best, run.last) == ((8, 0.105), (8, 0.105))


def test_what_cannot_be_compared_is_said(copied):
    other = copied('other', **{"ann_file='val.json'": "ann_file='val2.json'"})
    notes = compare([REAL, other]).notes
    assert (
        '**Not the same validation data**: data/trees/val.json; data/trees/val2.json'
        in notes
    )
    assert not any('Not the same' in note for note in compare([REAL]).notes)


def test_weights_and_checkpoint_are_named(copied):
    work_dir = copied('named')
    for name in ('epoch_12.pth', 'best_coco_bbox_mAP_epoch_8.pth',
                 'best_coco_bbox_mAP_epoch_12.pth'):  # fmt: skip
        (work_dir / name).touch()
    report = {'backbone': {'source': 'timm://lite0', 'coverage': 0.998}}
    (work_dir / 'pretrained_report.json').write_text(json.dumps(report))
    run = read_run(work_dir)
    assert run.checkpoint == str(work_dir / 'best_coco_bbox_mAP_epoch_12.pth')
    assert run.pretrained == 'timm://lite0 (99.8%)'


def test_memory_of_an_accelerator_is_the_largest(copied):
    lines = real_lines()
    lines[3] = lines[3].replace('"step"', '"memory": 1234, "step"')
    lines[5] = lines[5].replace('"step"', '"memory": 999, "step"')
    assert read_log(copied('gpu', lines)).memory == 1234


def test_files_are_written_and_not_overwritten(run_tool, copied, tmp_path):
    worse = copied('worse', real_lines()[:-20])
    out = tmp_path / 'new' / 'out'
    done = run_tool(TOOL, str(worse), str(REAL), '-o', str(out))
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert (out / 'comparison.md').read_text() == done.stdout
    rows = done.stdout.splitlines()
    assert rows[2].startswith(f'| {REAL.name} | YOLOX | TIMMBackbone tf_eff')
    assert '| 0.122 | epoch 12 | 0.122 | 12 epochs |' in rows[2]
    assert '| 0.105 | epoch 8 |' in rows[3]
    data = json.loads((out / 'comparison.json').read_text())
    assert [run['best']['value'] for run in data['runs']] == [0.122, 0.105]
    for name in FILES[2:]:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 400
            # Lines in the colours of two runs.
            colours = {
                colour for _, colour in picture.convert('RGB').getcolors(1 << 20)
            }
            assert {(31, 119, 180), (255, 127, 14)} <= colours
    (out / 'comparison.md').write_text('mine')
    done = run_tool(TOOL, str(REAL), '-o', str(out), '--json')
    assert done.returncode == 1
    assert 'are there already: write --force, or another -o' in done.stderr
    assert (out / 'comparison.md').read_text() == 'mine'
    done = run_tool(TOOL, str(REAL), '-o', str(out), '--json', '--force')
    assert done.returncode == 0
    assert json.loads(done.stdout)['runs'][0]['costs']['parameters'] == 4_736_578
    assert (out / 'comparison.md').read_text() != 'mine'


def test_all_mistakes_at_once(run_tool, tmp_path):
    (tmp_path / 'file').touch()
    done = run_tool(
        TOOL, 'no/such', str(REAL), f'{REAL}/', '-o', str(tmp_path / 'file' / 'out')
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: there is no folder 'no/such'",
        f"'{REAL}' is named twice",
        f"-o '{tmp_path}/file/out': '{tmp_path}/file' is a file, name a folder",
    ]


def test_runs_of_one_name_are_told_apart(copied):
    first, second = copied('a/trees'), copied('b/trees')
    assert [run.name for run in compare([first, second]).runs] == ['a/trees', 'b/trees']


def test_the_end_of_a_training_is_told_with_curves_and_the_next_command(copied):
    work_dir = copied('mine')
    (work_dir / 'best_coco_bbox_mAP_50_epoch_12.pth').touch()
    text = summarise(work_dir, 'mine.py')
    run = read_run(work_dir, with_costs=False)
    step, value = run.best
    assert f'best coco/bbox_mAP {value:.3f} after epoch {step} of 12' in text
    assert 'YOLOX with TIMMBackbone tf_efficientnet_lite0' in text
    assert text.endswith(
        f'next: {command("test")} mine.py '
        f'{work_dir / "best_coco_bbox_mAP_50_epoch_12.pth"}'
    )
    with Image.open(work_dir / PICTURE) as picture:
        assert min(picture.size) > 500
    assert not list(work_dir.glob('*.partial'))


def test_a_training_that_was_never_validated_says_so(copied):
    work_dir = copied('mine', [line for line in real_lines() if '"loss"' in line])
    assert 'no validation finished' in summarise(work_dir, 'mine.py')
    assert (work_dir / PICTURE).is_file()
