"""Very many images on a Ray cluster: what one process finds, once, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from exported_folders import write_exported
from finders import photographs

from mmdet_backbones.cli.main import main
from mmdet_backbones.errors import UserError
from mmdet_backbones.predict.on_ray import BoxWorker, ManyImages
from mmdet_backbones.predict.options import PredictOptions
from mmdet_backbones.predict.parquet import write_parquet
from mmdet_backbones.predict.running import predict
from mmdet_backbones.predict.shards import Shard, ShardFolder, images_of_one

# Of two shards.
SOME = 36
ENVIRONMENT = dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')


@pytest.fixture(scope='module')
def many(rooted, detector):
    """Synthetic photographs in two sizes."""
    folder = photographs(rooted / 'many', SOME - 4)
    photographs(folder / 'upright', 4, (96, 128))
    return folder


@pytest.fixture
def options(rooted, many, tmp_path, monkeypatch):
    monkeypatch.chdir(rooted)
    return PredictOptions('work', ('many',), device='cpu', out=tmp_path / 'a.jsonl')


def alone(options):
    """Lines that one process writes."""
    summary = predict(replace(options, out=options.out.with_name('alone.jsonl')))
    return summary, options.out.with_name('alone.jsonl').read_text()


@pytest.mark.parametrize('images', [1, 31, 32, 33, 2000, 64_001, 10**6])
@pytest.mark.parametrize('batch', [1, 3, 32, 100])
def test_no_batch_is_cut(images, batch):
    size = images_of_one(images, batch)
    assert size % batch == 0
    assert size >= 32
    assert -(-images // size) <= 2000


def test_a_shard_is_read_as_it_was_written(tmp_path):
    folder = ShardFolder(tmp_path / 'a.jsonl')
    folder.begin(dict(batch=1), force=False)
    shard = Shard('{"a": 1}\n', 1, Counter(tree=2), ['\udcff cannot be read'])
    folder.add(3, shard.to_text())
    assert folder.read(3) == shard
    assert folder.read(2) is None
    (folder.path / '000002.json').write_text(shard.to_text()[:20])
    assert folder.read(2) is None
    with pytest.raises(UserError, match=r"000000\.json' was taken away"):
        [*folder.lines(1)]


def test_shards_of_another_run_are_not_mixed_in(tmp_path):
    folder = ShardFolder(tmp_path / 'a.jsonl')
    folder.begin(dict(batch=1, images=3), force=False)
    folder.add(0, Shard().to_text())
    folder.begin(dict(batch=1, images=3), force=False)
    assert folder.read(0) == Shard()
    with pytest.raises(UserError, match='batch was 1, now it is 2; images was 3, now'):
        folder.begin(dict(batch=2, images=4), force=False)
    folder.begin(dict(batch=2, images=4), force=True)
    assert folder.read(0) is None


def rows(options, tmp_path):
    """What is sent to the workers."""
    return ManyImages(replace(options, out=tmp_path / 'rows.jsonl'))._rows()


@pytest.mark.parametrize('batch', [1, 3])
def test_a_worker_finds_what_one_process_finds(options, batch, tmp_path):
    options = replace(options, batch=batch, on_ray=True)
    worker = BoxWorker(options, os.getcwd(), 1)
    found = [worker(row) for row in rows(options, tmp_path)]
    _, lines = alone(options)
    assert [row['number'] for row in found] == [0, 1]
    shards = [Shard.from_text(row['text']) for row in found]
    assert sum(shard.images for shard in shards) == SOME
    assert ''.join(shard.lines for shard in shards) == lines


def test_a_worker_tells_its_mistakes(options, tmp_path):
    row = rows(options, tmp_path)[0]
    for folder, why in ((tmp_path / 'none', 'none'), (tmp_path, "'work'")):
        found = BoxWorker(replace(options, on_ray=True), str(folder), 1)(row)
        assert why in found['error']
        assert not found['text']


def test_parquet_has_what_the_lines_have(options, tmp_path):
    from pyarrow import parquet

    _, lines = alone(options)
    half = len(lines.splitlines()) // 2
    parts = lines.splitlines()[:half], lines.splitlines()[half:]
    texts = ['\n'.join(part) for part in parts]
    write_parquet(tmp_path / 'a.parquet', texts)
    found = parquet.read_table(tmp_path / 'a.parquet').to_pylist()
    wanted = [json.loads(line) for line in lines.splitlines()]
    assert len(found) == SOME
    for one, other in zip(found, wanted, strict=True):
        for mine, theirs in zip(one.pop('boxes'), other.pop('boxes'), strict=True):
            assert mine['class'] == theirs['class']
            assert mine['score'] == pytest.approx(theirs['score'], rel=1e-7)
            assert mine['box'] == pytest.approx(theirs['box'], rel=1e-7)
        assert one == other


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (
            ['--paint', 'painted', '--format', 'csv', '--device', 'cuda:1'],
            [
                '--format json or parquet, got csv',
                '--paint, or --ray',
                'cuda, or leave',
            ],
        ),
        (['--workers', '0'], ['write -o found.jsonl', '--workers is 1 or more, got 0']),
        (['--format', 'parquet', '-o', 'a.jsonl'], ['write -o a.parquet']),
    ],
)
def test_what_a_cluster_does_not_do_is_told_at_once(options, words, told, capfd):
    assert main(['predict', 'work', 'many', *words, '--ray']) == 1
    error = capfd.readouterr().err
    assert [text for text in told if text not in error] == []


def test_what_belongs_to_a_cluster_alone(options, capfd):
    words = ['--format', 'parquet', '-o', 'a.parquet', '--workers', '2']
    assert main(['predict', 'work', 'many', *words]) == 1
    error = capfd.readouterr().err
    assert 'write --ray as well' in error
    assert '--workers belongs to --ray' in error


def test_ray_that_is_not_there_is_told(options, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert main(['predict', 'work', 'many', '-o', 'a.jsonl', '--ray']) == 1
    assert 'pip install "mmdet_backbones[search]"' in capfd.readouterr().err


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, '-m', 'mmdet_backbones', 'predict', *map(str, words)],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_equals_one_process(options, rooted, tmp_path):
    folder = photographs(rooted / 'more', 100)
    (folder / '5x.png').write_bytes((folder / '5.png').read_bytes()[:60])
    (folder / '66x.png').write_text('no image')
    options = replace(options, sources=('more',))
    out = tmp_path / 'found.jsonl'
    words = ('work', 'more', '--device', 'cpu', '-o', out, '--workers', 2, '--ray')
    first = start(rooted, *words)
    shards = Path(f'{out}.shards')
    deadline = time.monotonic() + 500
    while not [*shards.glob('0*.json')] and time.monotonic() < deadline:
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = sorted(shards.glob('0*.json'))
    assert 1 <= len(done) < 4
    assert not out.exists()
    # What stands there is not looked for again.
    kept = Shard.from_text(done[0].read_text())
    planted = '{"image": "planted"}\n'
    kept.lines = planted + kept.lines
    done[0].write_text(kept.to_text())

    second = start(rooted, *words, '--json')
    said, _ = second.communicate(timeout=500)
    assert second.returncode == 1, said  # of the files that are no images
    summary, lines = alone(options)
    assert out.read_text().replace(planted, '', 1) == lines
    assert out.read_text().count(planted) == 1
    told = json.loads(said[said.index('{\n') :])
    assert told['images'] == summary.images == 100
    assert sorted(told['problems']) == sorted(summary.problems)
    assert told['classes'] == summary.to_dict()['classes']
    assert not shards.exists()


@pytest.mark.slow
def test_exported_detectors_find_the_same_on_a_cluster(rooted, many, tmp_path):
    write_exported(tmp_path / 'exported')
    words = [str(tmp_path / 'exported'), 'many', '--threshold', '0.4']
    said, _ = start(rooted, *words, '-o', tmp_path / 'a.jsonl').communicate()
    assert 'a.jsonl' in said
    other = ('-o', tmp_path / 'a.parquet', '--format', 'parquet', '--ray')
    said, _ = start(rooted, *words, *other).communicate(timeout=500)
    assert 'a.parquet' in said
    lines = (tmp_path / 'a.jsonl').read_text()
    write_parquet(tmp_path / 'b.parquet', [lines])
    same = [(tmp_path / name).read_bytes() for name in ('a.parquet', 'b.parquet')]
    assert same[0] == same[1]
    assert lines.count('"box"') > 10
