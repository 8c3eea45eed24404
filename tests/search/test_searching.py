"""Real searches on synthetic squares: killed, spread over machines, with failures."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from searches import (
    NETS,
    assert_trained_once,
    command_of,
    killed_when,
    parts,
    small_search,
    state_of,
)

from mmdet_backbones.cli.main import main
from mmdet_backbones.errors import UserError
from mmdet_backbones.search.searching import LATE, search, trial_order
from mmdet_backbones.search.training import (
    CONFIG,
    NOTES,
    iterations_of,
    train_trial,
)
from mmdet_backbones.search.trial_config import TrialSpec

SPEC, SECOND = (TrialSpec(name, (64, 64)) for name in NETS)


class KilledError(Exception):
    """Ends a training as a kill after a report does."""


@pytest.mark.slow
def test_latencies_of_what_export_writes(tmp_path):
    options = small_search(tmp_path, latency_of='onnx', latency=1e-3)
    with pytest.raises(UserError, match='no candidate is left'):
        search(options, nullcontext(lambda state, happened: None))
    for candidate in state_of(options)['candidates']:
        assert candidate['milliseconds'] > 0, candidate
        assert '--latency is 0.001 ms' in candidate['refused']


@pytest.mark.slow
def test_a_trial_goes_on_where_it_was_and_tells_all_again(tmp_path):
    options = small_search(tmp_path)
    order = trial_order(options, 'abc')
    told = []

    def die(found):
        told.append(found)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trial(order, SPEC, die)
    assert [found['epoch'] for found in told] == [1]
    again: list[dict] = []
    train_trial(order, SPEC, again.append)
    assert [found['epoch'] for found in again] == [1, 2]
    assert again[0] == told[0]
    (spans,) = parts(options).values()
    assert spans == [(0, 2), (2, 4)]
    # What has ended is told, and not trained again.
    third: list[dict] = []
    train_trial(order, SPEC, third.append)
    assert third == again
    assert parts(options) == {SPEC.name: spans}
    folder = tmp_path / 'found' / 'trials' / SPEC.name
    assert 'max_epochs=2' in (folder / CONFIG).read_text()
    notes = json.loads((folder / NOTES).read_text())
    assert (notes['seed'], notes['data']) == (0, 'abc')
    assert notes['versions']['torch'] == torch.__version__.partition('+')[0]


@pytest.mark.slow
def test_a_trial_goes_on_where_nothing_of_it_is_on_the_disk(tmp_path, monkeypatch):
    copying = MemoryFileSystem.put_file
    failures = [OSError('no route to host')]

    def fails_at_first(*arguments, **named):
        if failures:
            raise failures.pop()
        return copying(*arguments, **named)

    options = small_search(tmp_path, storage='memory://bucket')
    orders = [
        replace(trial_order(options, 'abc'), folder=str(tmp_path / machine))
        for machine in ('one', 'other', 'third')
    ]

    def die(found):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trial(orders[0], SPEC, die)
    # What it trained is out of reach.
    for path in (tmp_path / 'one' / SPEC.name).glob('*.pth'):
        path.unlink()
    told: list[dict] = []
    train_trial(orders[1], SPEC, told.append)
    assert [found['epoch'] for found in told] == [1, 2]
    assert iterations_of(tmp_path / 'other' / SPEC.name) == [(0, 2), (2, 4)]
    # The first machine comes back with its older state, another one with nothing.
    for order in orders[0], orders[2]:
        again: list[dict] = []
        train_trial(order, SPEC, again.append)
        assert again == told
        assert iterations_of(Path(order.folder) / SPEC.name) == [(0, 2), (2, 4)]
    # An epoch that cannot be copied is copied with the next one.
    monkeypatch.setattr(MemoryFileSystem, 'put_file', fails_at_first)
    late = replace(orders[0], folder=str(tmp_path / 'late'), seed=1)
    train_trial(late, SECOND, told.append)
    assert 'error' not in told[-1]
    copy = fsspec.filesystem('memory').cat_file(f'/bucket/{SECOND.name}/trained.json')
    assert json.loads(copy)['parts'][-1]['to'] == 4
    # One checkpoint at a time, as on the disk.
    kept = fsspec.filesystem('memory').glob(f'/bucket/{SPEC.name}/*.pth')
    assert kept == [f'/bucket/{SPEC.name}/epoch_2.pth']


def test_a_trial_that_cannot_be_is_told_and_is_not_the_end(tmp_path):
    options = small_search(tmp_path)
    told: list[dict] = []
    train_trial(
        trial_order(options, ''), replace(SPEC, backbone='timm/resnet81'), told.append
    )
    ((found),) = told
    assert found['epoch'] == 0
    assert "no backbone 'timm/resnet81'" in found['error']
    (error,) = (options.out / 'trials').glob('*/error.txt')
    assert error.read_text() == found['error']


def test_nobody_is_left(tmp_path):
    options = small_search(tmp_path, latency=1e-6)
    with pytest.raises(UserError, match='no candidate is left'):
        search(options, nullcontext(lambda state, happened: None))
    report = (options.out / 'search.md').read_text()
    for name in NETS:
        assert f'| {name} | 64 x 64 |' in report
    assert report.count('--latency is 1e-06 ms') == len(NETS)


def test_hours_that_are_over_are_told_and_more_go_on(tmp_path):
    options = small_search(tmp_path, hours=1e-9, latency=1e-6)
    with pytest.raises(UserError, match='no candidate is left'):
        search(options, nullcontext(lambda state, happened: None))
    reasons = [c['refused'] for c in state_of(options)['candidates']]
    assert reasons == [LATE] * len(NETS)
    # With more of them the latencies are measured, and are too long.
    more = replace(options, hours=1.0)
    with pytest.raises(UserError, match='no candidate is left'):
        search(more, nullcontext(lambda state, happened: None))
    assert all(c['milliseconds'] for c in state_of(options)['candidates'])


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_trains_nothing_again(tmp_path, capsys):
    options = small_search(tmp_path)

    def one_has_ended() -> bool:
        path = options.out / 'search.json'
        if not path.is_file():
            return False
        trials = json.loads(path.read_text())['trials']
        begun = any(len(spans) for spans in parts(options).values())
        ended = [t for t in trials if t['status'] in ('finished', 'stopped')]
        return bool(ended) and len(trials) > 1 and begun

    killed_when(options, one_has_ended)
    before = state_of(options)
    old = parts(options)
    measured_at = [c['milliseconds'] for c in before['candidates']]
    words = command_of(replace(options, trials=3))[3:]
    assert main([*words, '--json']) == 0
    out = json.loads(capsys.readouterr().out)
    after = state_of(options)
    assert [c['milliseconds'] for c in after['candidates']] == measured_at
    assert_trained_once(options, epochs=2)
    for record in before['trials']:
        if record['status'] in ('finished', 'stopped'):
            assert parts(options)[record['name']] == old[record['name']]
    assert len(after['trials']) == 3
    assert {t['status'] for t in after['trials']} <= {'finished', 'stopped'}
    assert after['spent'] > before['spent']
    assert out['winner'] in parts(options)
    assert 'winner.py' in out['next']
    for name in ('search.md', 'search.png', 'winner.py'):
        assert (options.out / name).is_file()
    # Its trials are trainings like any others.
    main(['compare', str(options.out), '--json'])
    compared = json.loads(capsys.readouterr().out)['runs']
    assert {run['name']: run['reached'] for run in compared} == {
        record['name']: record['series'][-1][0] for record in after['trials']
    }
    # Once more, with nothing left to do.
    assert main([*words, '--json', '--resume']) == 0
    assert json.loads(capsys.readouterr().out)['trials'] == after['trials']


@pytest.mark.slow
def test_trials_move_from_a_machine_that_dies(tmp_path, monkeypatch):
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    monkeypatch.setenv('RAY_worker_niceness', '0')
    from ray.cluster_utils import Cluster

    cores = dict(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20)
    cluster = Cluster(initialize_head=True, head_node_args=cores)
    try:
        other = cluster.add_node(**cores)
        dying = other.node_id[:8]
        options = small_search(tmp_path, ray=cluster.address, epochs=4, trials=3)
        removed: list[str] = []

        def kill(state, happened):
            hit = [t for t in state.trials.values() if dying in t.nodes and not t.ended]
            if hit and not removed:
                removed.append(hit[0].spec.name)
                cluster.remove_node(other, allow_graceful=False)

        state = search(options, nullcontext(kill))
    finally:
        cluster.shutdown()
    assert removed
    moved = state.trials[removed[0]]
    assert moved.nodes[0] == dying
    assert len(moved.nodes) == 2
    assert all(record.ended and not record.error for record in state.trials.values())
    assert_trained_once(options, epochs=4)
