"""Trainings that are killed, disks that are full, and several processes."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time

import dist_runs
import pytest
import tiny_runs
import torch
from tiny_runs import StopHook, train

from mmdet_backbones.detector_config.whole_checkpoints import WorkFolder

HOOK = 'default_hooks.checkpoint'
ONE_OF_EACH = {f'{HOOK}.save_best': 'tiny/acc', f'{HOOK}.max_keep_ckpts': 1}
EPOCHS = 30
KILLS = 30


def newest(work):
    found = WorkFolder.of(tiny_runs.config(work, **ONE_OF_EACH)).newest().found
    return found.epoch if found else 0


def checkpoints(work):
    """What is left of a training, but its logs: contents by name."""
    assert not list(work.glob('.*'))
    return {path.name: torch.load(path) for path in work.glob('*.pth')}


def wait(child, seconds):
    """The exit status; the process is killed if it does not end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, content in ours.items():
        for key in ('state_dict', 'optimizer', 'ema_state_dict'):
            if key in content:
                torch.testing.assert_close(
                    content[key], theirs[name][key], rtol=0, atol=0
                )
        assert content['meta']['epoch'] == theirs[name]['meta']['epoch']


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_is_the_same_one(tmp_path):
    options = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)], **ONE_OF_EACH)
    train(tmp_path / 'whole', EPOCHS, **options)
    whole = checkpoints(tmp_path / 'whole')
    chance = random.Random(0)
    kills = trainings = 0
    while kills < KILLS:
        work, before, ended = tmp_path / f'killed_{trainings}', 0, None
        best: list[dict] = []
        while ended != 0:
            child = tiny_runs.fork(
                lambda work=work: train(work, EPOCHS, 'auto', **options),
                tmp_path / 'log.txt',
            )
            seconds = chance.uniform(0.2, 3) if kills < KILLS else 120
            ended = wait(child, seconds)
            assert ended in (0, -signal.SIGKILL), (tmp_path / 'log.txt').read_text()
            kills += ended != 0
            assert newest(work) >= before
            before = newest(work)
            # Once there was a best one, there is always one.
            best = [torch.load(path) for path in work.glob('best_*.pth')] or best
            assert bool(best) == any(work.glob('best_*.pth'))
        trainings += 1
        assert before == EPOCHS
        assert_same(checkpoints(work), whole)
        shutil.rmtree(work)
    assert trainings >= 2


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / 'disk'
    place.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip('there is no mount')
    if done.returncode:
        pytest.skip(f'a file system cannot be mounted: {done.stderr.strip()}')
    yield place
    subprocess.run(['umount', '-l', str(place)], check=True)


# Two checkpoints of more than 100 kB are kept; the logs of a run take less than 60 kB.
LARGE = {'model.width': 128, **ONE_OF_EACH}


def fill_and_resume(disk, log, reserve, **options):
    """Train two epochs, fill the disk but for a reserve, go on; the exit status."""
    work = disk / 'work'
    train(work, 2, **LARGE)
    free = shutil.disk_usage(disk).free
    (disk / 'filler').write_bytes(bytes(max(0, free - reserve)))
    child = tiny_runs.fork(lambda: train(work, 4, 'auto', **LARGE, **options), log)
    status = wait(child, 60)
    assert newest(work) == 2
    assert not list(work.glob('.*'))
    (disk / 'filler').unlink()
    assert train(work, 4, 'auto', **LARGE).epoch == 4
    return status


# Noticed when the Runner is built, by the log or by a checkpoint, and by a checkpoint.
@pytest.mark.slow
@pytest.mark.parametrize('reserve', [0, 8192, 60_000])
def test_a_full_disk_ends_in_one_message(reserve, small_disk, tmp_path):
    log = tmp_path / 'log.txt'
    assert fill_and_resume(small_disk, log, reserve) == 1
    text = log.read_text()
    assert text.count('error: ') == 1
    assert 'Traceback' not in text
    place = small_disk / 'work' / 'epoch_2.pth'
    assert f"the last whole checkpoint is '{place}'" in text
    if reserve == 60_000:
        assert 'no checkpoint could be written' in text


@pytest.mark.slow
def test_a_training_goes_on_beside_a_full_disk(small_disk, tmp_path):
    log = tmp_path / 'log.txt'
    options = {f'{HOOK}.on_write_error': 'continue'}
    assert fill_and_resume(small_disk, log, 60_000, **options) == 0
    assert log.read_text().count('no checkpoint could be written') >= 2


def in_two_processes(task, folder):
    """Do something in two processes that know each other; their statuses and logs."""
    names = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(dist_runs.free_port()))
    names.update(GLOO_SOCKET_IFNAME='lo', WORLD_SIZE='2')
    logs = [folder / f'log_{rank}.txt' for rank in (0, 1)]

    def begin(rank):
        os.environ.update(names, RANK=str(rank), LOCAL_RANK=str(rank))
        task(rank)

    children = [
        tiny_runs.fork(lambda rank=rank: begin(rank), logs[rank]) for rank in (0, 1)
    ]
    statuses = [wait(child, 60) for child in children]
    return statuses, [log.read_text() for log in logs]


def test_all_processes_stop_when_the_first_cannot_write(tmp_path):
    work = tmp_path / 'work'

    def task(rank):
        if rank == 0:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
        train(work, 2, launcher='pytorch', **ONE_OF_EACH)

    statuses, logs = in_two_processes(task, tmp_path)
    assert statuses == [1, 1], logs
    assert [log.count('error: ') for log in logs] == [1, 0], logs
    assert not any('Traceback' in log for log in logs), logs
    assert 'there is no whole checkpoint yet' in logs[0]


@pytest.mark.slow
def test_the_first_process_chooses_for_all(tmp_path):
    work = tmp_path / 'work'
    with pytest.raises(KeyboardInterrupt):
        train(work, 3, hook=StopHook(2))
    (work / 'epoch_2.pth').write_bytes(b'')

    def task(rank):
        # The second does not see what the first one sees, but for the file itself.
        runner = train(work, 3, 'auto', launcher='pytorch')
        assert runner.epoch == 3
        assert runner._load_from == str(work / 'epoch_1.pth')

    assert in_two_processes(task, tmp_path)[0] == [0, 0]
    (work / 'epoch_3.pth').write_bytes(b'')
    (work / 'epoch_2.pth').write_bytes(b'')
    (work / 'epoch_1.pth').write_bytes(b'')
    statuses, logs = in_two_processes(task, tmp_path)
    assert statuses == [1, 1]
    assert 'no checkpoint' in logs[0]
    assert not any('Traceback' in log for log in logs), logs
