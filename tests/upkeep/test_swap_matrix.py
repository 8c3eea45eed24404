"""The matrix of detectors and backbones: resumed, and not ended by a crash."""

import json
import sys

import detector_matrix as matrix
import pytest
from detector_matrix import BACKBONES, DETECTORS

TOOL = 'tools/upkeep/detector_matrix.py'


def test_enough_of_both():
    assert len(DETECTORS) >= 12
    assert len(BACKBONES) >= 12
    sources = {name.partition('/')[0] for name in BACKBONES}
    assert {'timm', 'torchvision', 'mmpretrain', 'mmdet'} <= sources


def test_a_crash_takes_its_own_pair_only(tmp_path):
    record = tmp_path / 'record.jsonl'
    # Notes the first pair that is missing, then dies at the second.
    worker = tmp_path / 'worker.py'
    worker.write_text(
        'import json, os, sys\n'
        'place = sys.argv.index("--cells")\n'
        'detector, first, *rest = sys.argv[place + 1:]\n'
        'line = dict(detector=detector, backbone=first, step=None, idle=0, loss=1.0)\n'
        f'open({str(record)!r}, "a").write(json.dumps(line) + "\\n")\n'
        'if rest:\n'
        '    os._exit(9)\n'
    )
    cells = [('SSD', name) for name in ('a', 'b', 'c')]
    found = list(matrix.fill(record, cells, 5, [sys.executable, str(worker)]))
    assert [entry['backbone'] for entry in found] == ['a', 'b', 'c']
    assert [entry['step'] for entry in found] == [None, 'process', None]
    assert 'died with status 9' in found[1]['reason']
    # Nothing is left to do.
    assert list(matrix.fill(record, cells, 5, ['false'])) == []


def test_the_page_counts_and_names_what_fails(tmp_path):
    record = tmp_path / 'record.jsonl'
    matrix.note(record, ('SSD', 'a'), dict(step=None, loss=1.0, idle=0))
    matrix.note(record, ('SSD', 'b'), dict(step='swap', reason='no such level'))
    page = matrix.page(record, [('SSD', 'a'), ('SSD', 'b')], 'command')
    assert '**1 of 2 pairs work (50.0 %).**' in page
    assert '| SSD | yes | no |' in page
    assert '- SSD, `b` (swap): no such level' in page


def test_a_pair_that_is_no_pair_is_told(tmp_path):
    record = tmp_path / 'record.jsonl'
    matrix.try_cells(record, 'RTMDet', ['timm/beit_base_patch16_224'], 60)
    (entry,) = matrix.read(record).values()
    assert entry['told']
    assert 'images of 224 x 224 only' in entry['reason']


@pytest.mark.slow
def test_the_tool_tries_a_pair_and_does_not_try_it_again(run_python, tmp_path):
    record, out = tmp_path / 'record.jsonl', tmp_path / 'page.md'
    command = [
        TOOL, '--detectors', 'RTMDet', '--backbones', 'mmpretrain/shufflenet-v2-1x',
        '--record', str(record), '--out', str(out),
    ]  # fmt: skip
    done = run_python(*command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'works' in done.stdout
    assert json.loads(record.read_text())['step'] is None
    assert '**1 of 1 pairs work (100.0 %).**' in out.read_text()
    again = run_python(*command)
    assert 'works' not in again.stdout
