"""What a search cannot be asked for, and what its folder must be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from squares import draw_squares

from mmdet_backbones.cli.main import main
from mmdet_backbones.environment import missing_extra
from mmdet_backbones.errors import UserError
from mmdet_backbones.search import cluster
from mmdet_backbones.search.options import (
    SearchOptions,
    parse_checkpoints,
    parse_latency,
    require_sound_options,
)
from mmdet_backbones.search.state import Clock, TrialRecord, open_search
from mmdet_backbones.search.trial_config import TrialSpec

BASE = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
SPEC = TrialSpec('timm/test_resnet', (64, 64), 0.5, 'more')


@pytest.fixture
def options(tmp_path):
    (tmp_path / 'data').mkdir()
    data = draw_squares(tmp_path / 'data')
    return SearchOptions(BASE, str(data), ('timm/test_resnet',), tmp_path / 'found')


def test_every_mistake_is_told_at_once(options, tmp_path):
    (tmp_path / 'file').write_text('')
    wrong = replace(
        options, latency=-1.0, hours=0.0, trials=0, epochs=0, batch=0, rounds=0,
        cpus_per_trial=10_000, sizes=(8,), no_weights=True, licence='mit',
        device='tpu', latency_of='tensorrt', out=tmp_path / 'file',
        storage='nosuch://bucket',
    )  # fmt: skip
    with pytest.raises(UserError) as error:
        require_sound_options(wrong)
    told = str(error.value).splitlines()
    for word in ('--latency', '--hours', '--trials', '--epochs', '--batch', '--rounds',
                 '--cpus-per-trial', '--sizes', '--no-weights', '--device',
                 '--latency-of', '--storage', '-o '):  # fmt: skip
        assert sum(line.split(' ')[0] == word.strip() for line in told) == 1, word
    require_sound_options(options)


def test_a_missing_extra_is_one_line_to_write():
    told = missing_extra('search', 'search', 'ray', 'no_such_package')
    assert told is not None
    assert 'search needs no_such_package, not installed' in told
    assert 'pip install "mmdet_backbones[search]"' in told
    assert missing_extra('search', 'search', 'ray', 'optuna') is None


def test_a_cluster_that_does_not_answer():
    with (
        pytest.raises(UserError, match=r"answers at '127\.0\.0\.1:1'"),
        cluster.connect('127.0.0.1:1'),
    ):
        pass


@pytest.mark.parametrize(
    ('text', 'value'), [('20ms', 20), ('0.02s', 20), (' 7.5 MS', 7.5), ('3', 3)]
)
def test_latencies(text, value):
    assert parse_latency(text) == pytest.approx(value)


def test_texts_that_are_none():
    with pytest.raises(UserError, match='as in 20ms'):
        parse_latency('fast')
    assert parse_checkpoints(['a/b=c=d']) == {'a/b': 'c=d'}
    with pytest.raises(UserError, match='takes NAME=FILE'):
        parse_checkpoints(['a/b'])


def test_a_search_is_read_as_it_was_written(options):
    state = open_search(options)
    record = TrialRecord(SPEC, 'stopped', {1.0: 0.25, 2.0: 0.125}, nodes=['a'])
    state.trials[SPEC.name] = record
    state.spent = 12.5
    state.write()
    again = open_search(replace(options, hours=9.0, trials=50, ray='auto'), resume=True)
    assert again == state
    assert again.trials[SPEC.name].ap == 0.25
    assert Clock(again, 1.0).left() == pytest.approx(3600 - 12.5, abs=5)


def test_other_settings_or_data_are_another_search(options, tmp_path):
    with pytest.raises(UserError, match='--resume: there is no search'):
        open_search(options, resume=True)
    open_search(options).write()
    with pytest.raises(UserError, match='epochs was 12, is 24; seed was 0, is 1'):
        open_search(replace(options, epochs=24, seed=1))
    path = tmp_path / 'data' / 'train.json'
    content = json.loads(path.read_text())
    content['annotations'].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='the data have changed'):
        open_search(options)


def test_a_folder_that_is_none_of_a_search(options):
    options.out.mkdir()
    (options.out / 'mine.txt').write_text('')
    with pytest.raises(UserError, match='holds something else'):
        open_search(options)
    (options.out / 'search.json').write_text('{')
    with pytest.raises(UserError, match='is damaged'):
        open_search(options)


def test_trials_have_a_name_each():
    specs = [
        TrialSpec(name, size, rate, freezing)
        for name in ('timm/a', 'timm-a')
        for size in ((64, 64), (64, 96))
        for rate in (1.0, 1.0000001)
        for freezing in ('recipe', 'more')
    ]
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert TrialSpec.from_choice(spec.to_choice(('candidate', 'rate', 'freezing')))
        assert spec.name.isprintable()
        assert '/' not in spec.name


def test_the_command_tells_mistakes(tmp_path, capsys):
    words = ['search', BASE, '--data', str(tmp_path), '--backbones', 'timm/resnet18']
    assert main([*words, '-o', str(tmp_path / 'x')]) == 1
    assert '--data' in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()
    assert main([*words, '-o', str(tmp_path / 'x'), '--latency', 'soon']) == 1
    assert 'as in 20ms' in capsys.readouterr().err
