"""The demo's driver around parts that fail, or that an earlier run finished."""

import json

import pytest

from mmdet_backbones.cli.demo import DemoStoppedError, run_demo

PARTS = ('demo/prepare_demo', 'train', 'test', 'demo/report_demo')


@pytest.fixture
def clone(tmp_path):
    """A root whose tools note their command line and end with a given status."""

    def make(status: dict[str, int] | None = None):
        (tmp_path / 'tools' / 'demo').mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            code = (
                'import sys\n'
                "open('calls.txt', 'a').write(' '.join(sys.argv) + '\\n')\n"
                f'sys.exit({(status or {}).get(part, 0)})\n'
            )
            (tmp_path / 'tools' / f'{part}.py').write_text(code)
        work = tmp_path / 'work_dirs' / 'demo'
        work.mkdir(parents=True, exist_ok=True)
        (work / 'best_coco_bbox_mAP_50_epoch_8.pth').touch()
        return tmp_path

    return make


def calls(root) -> list[str]:
    lines = (root / 'calls.txt').read_text().splitlines()
    return [
        line.split()[0].removeprefix(f'{root}/tools/').removesuffix('.py')
        for line in lines
    ]


@pytest.mark.parametrize('part', PARTS)
def test_a_part_that_fails_stops_the_demo(clone, part):
    root = clone({part: 3})
    with pytest.raises(DemoStoppedError) as stop:
        run_demo(root, tools=root / 'tools')
    assert stop.value.status == 3
    assert calls(root) == list(PARTS[: PARTS.index(part) + 1])


def test_finished_training_is_kept_and_interrupted_one_goes_on(clone):
    root = clone({'train': 3})
    with pytest.raises(DemoStoppedError):
        run_demo(root, tools=root / 'tools')
    root = clone()
    run_demo(root, tools=root / 'tools', setup_seconds=5)
    run_demo(root, tools=root / 'tools')
    assert calls(root).count('train') == 2
    assert '--resume' in (root / 'calls.txt').read_text()
    timings = json.loads((root / 'work_dirs/demo/timings.json').read_text())
    assert set(timings) == {'set-up', 'data and weights', 'training', 'testing'}


def test_scratch_trains_elsewhere_without_weights(clone):
    root = clone()
    work = root / 'work_dirs' / 'demo-scratch'
    work.mkdir()
    (work / 'best_coco_bbox_mAP_50_epoch_8.pth').touch()
    run_demo(root, tools=root / 'tools', scratch=True)
    text = (root / 'calls.txt').read_text()
    assert 'model.backbone.init_cfg=None' in text
    assert '--work-dir work_dirs/demo-scratch' in text
